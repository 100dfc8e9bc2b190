#include <doctest/doctest.h>

#include <vector>

#include "sparsecore/backends.h"
#include "sparsecore/cpu.h"
#include "sparsecore/parallel.h"

using namespace sparsecore;

TEST_CASE("levels start at scalar, end at the detected one, and can be capped") {
  Isa levels[16];
  const int count = available_isas(levels, 16);
  REQUIRE(count >= 1);
  CHECK(levels[0] == Isa::kScalar);
  CHECK(levels[count - 1] == detected_isa());
  const Isa before = current_isa();
  for (int i = 0; i < count; ++i) {
    REQUIRE(set_isa_cap(levels[i]));
    CHECK(current_isa() == levels[i]);
    Isa parsed;
    REQUIRE(parse_isa(isa_name(levels[i]), &parsed));
    CHECK(parsed == levels[i]);
    for (int j = 0; j < count; ++j) CHECK(isa_enabled(levels[j]) == (j <= i));
  }
  set_isa_cap(before);
  CHECK_FALSE(parse_isa("avx1024", &levels[0]));
}

TEST_CASE("scratch memory is aligned, grows and is given back") {
  void* first = scratch(Scratch::kPanel, 100);
  REQUIRE(first != nullptr);
  CHECK(reinterpret_cast<uintptr_t>(first) % 64 == 0);
  CHECK(scratch(Scratch::kPanel, 50) == first);
  CHECK(scratch(Scratch::kPanel, 1 << 20) != nullptr);
  CHECK(scratch_bytes() >= (1u << 20));
  release_scratch();
  CHECK(scratch_bytes() == 0);
}

TEST_CASE("every listed kernel has a name and a level") {
  std::vector<Backend> rows(backends(nullptr, 0));
  backends(rows.data(), static_cast<int>(rows.size()));
  for (const Backend& row : rows) {
    CHECK(row.op != nullptr);
    CHECK(row.kernel != nullptr);
    CHECK(isa_name(row.isa) != nullptr);
  }
}
