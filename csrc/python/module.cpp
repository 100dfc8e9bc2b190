// sparsecore._C: what was built, what the machine has, and the cap a user sets. Operators are torch's business.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "sparsecore/backends.h"
#include "sparsecore/cpu.h"
#include "sparsecore/linear.h"
#include "sparsecore/parallel.h"

namespace py = pybind11;
using namespace sparsecore;

namespace {

std::vector<std::string> available() {
  Isa levels[16];
  const int count = available_isas(levels, 16);
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.emplace_back(isa_name(levels[i]));
  return names;
}

void set_cap(const std::string& name) {
  Isa isa;
  if (parse_isa(name.c_str(), &isa) && set_isa_cap(isa)) return;
  std::string known;
  for (const std::string& level : available()) known += (known.empty() ? "" : ", ") + level;
  throw std::invalid_argument("cpu.use: this machine has no instruction set '" + name + "'; it has " + known + ".");
}

// (operator, kernel, instruction set, weight types, usable now)
std::vector<std::tuple<std::string, std::string, std::string, std::string, bool>> table() {
  std::vector<Backend> rows(backends(nullptr, 0));
  backends(rows.data(), static_cast<int>(rows.size()));
  std::vector<std::tuple<std::string, std::string, std::string, std::string, bool>> out;
  for (const Backend& row : rows)
    out.emplace_back(row.op, row.kernel, isa_name(row.isa), row.weights, isa_enabled(row.isa));
  return out;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "What sparsecore was built with and what this machine has.";
  m.def("build_info", [] {
    py::dict info;
    info["version"] = SPARSECORE_VERSION;
    info["commit"] = SPARSECORE_COMMIT;
    info["compiler"] = SPARSECORE_COMPILER;
    info["build_type"] = SPARSECORE_BUILD_TYPE;
    info["flags"] = SPARSECORE_FLAGS;
    return info;
  });
  m.def("detected_isa", [] { return isa_name(detected_isa()); });
  m.def("current_isa", [] { return isa_name(current_isa()); });
  m.def("available_isas", &available);
  m.def("set_isa_cap", &set_cap);
  m.def("fast_bf16_dot", &fast_bf16_dot);
  m.def("backends", &table);
  m.def("num_threads", &num_threads);
  m.def("scratch_bytes", &scratch_bytes);
  m.def("release_scratch", &release_scratch);
  m.def("describe_status", [](int status) { return describe(static_cast<Status>(status)); });
}
