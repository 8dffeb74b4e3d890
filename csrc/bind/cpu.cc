// What holds for the process and not for one engine: the CPU budget, malloc's arenas and the measurements at load.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>

#include "backend/tuning.h"
#include "base/cpu_budget.h"
#include "bind/engine.h"
#include "engine/resident_memory.h"

namespace py = pybind11;

namespace fastserve::bind {

void register_cpu(py::module_& module) {
  module.def(
      "limit_cpu_threads", [](int threads) { CpuBudget::process().limit_threads(threads); },
      py::arg("threads"));
  module.def("cpu_threads", [] { return CpuBudget::process().threads(); });
  module.def("limit_malloc_arenas", &limit_malloc_arenas, py::arg("most"));
  module.def(
      "set_tuning",
      [](bool at_load, std::string cache_directory) {
        TuneSettings settings = tune_settings();
        settings.at_load = at_load;
        settings.cache_directory = std::move(cache_directory);
        set_tune_settings(settings);
      },
      py::kw_only(), py::arg("at_load"), py::arg("cache_directory"));
}

}  // namespace fastserve::bind
