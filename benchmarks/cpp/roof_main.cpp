// Prints the machine's limits.
//
//   roof [--json] [--threads=N] [--isa=avx2]
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "pool.h"
#include "roof.h"
#include "sparsecore/cpu.h"

int main(int argc, char** argv) {
  bool json = false;
  int threads = bench::available_threads();
  for (int i = 1; i < argc; ++i) {
    sparsecore::Isa isa;
    if (!std::strcmp(argv[i], "--json")) {
      json = true;
    } else if (!std::strncmp(argv[i], "--threads=", 10) && std::atoi(argv[i] + 10) > 0) {
      threads = std::atoi(argv[i] + 10);
    } else if (std::strncmp(argv[i], "--isa=", 6) || !sparsecore::parse_isa(argv[i] + 6, &isa) ||
               !sparsecore::set_isa_cap(isa)) {
      std::fprintf(stderr, "%s: cannot use %s\n", argv[0], argv[i]);
      return 1;
    }
  }
  bench::use_threads(threads);
  const bench::Peak* rows;
  const int count = bench::peaks(&rows);
  std::vector<std::pair<std::string, double>> limits;
  for (int i = 0; i < count; ++i)
    if (i == 0 || std::strcmp(rows[i].name, rows[i - 1].name))
      if (const double rate = bench::peak_gflops(rows[i].name); rate > 0) limits.emplace_back(rows[i].name, rate);
  limits.emplace_back("read_gb_per_s", bench::read_gb_per_s());
  if (threads > 1) limits.emplace_back("handover_ns", bench::handover_ns());
  for (int64_t kib = 64; kib <= 16 * 1024; kib *= 4)
    limits.emplace_back("copy_gb_per_s_" + std::to_string(kib) + "KiB", bench::copy_gb_per_s(kib * 1024));
  if (json) std::printf("{");
  for (size_t i = 0; i < limits.size(); ++i)
    std::printf(json ? "%s\"%s\": %.2f" : "%s%-24s %9.1f\n", json && i ? ", " : "", limits[i].first.c_str(),
                limits[i].second);
  if (json) std::printf("}\n");
}
