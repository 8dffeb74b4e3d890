// fastserve._core: registration only; one bound family per file.
#include <pybind11/pybind11.h>

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "bind/engine.h"
#include "bind/errors.h"

#ifndef FASTSERVE_VERSION
#define FASTSERVE_VERSION "0"
#endif

namespace py = pybind11;

namespace fastserve::bind {
namespace {

// Never destroyed, see errors.cc.
py::object& python_sink() {
  static auto* held = new py::object(py::none());
  return *held;
}

// Lines on their way to Python's main thread, which takes them when it next runs: whoever logs, I/O threads among them, does not
// wait for the interpreter lock. Guarded by the mutex; never destroyed, see errors.cc.
struct Lines {
  static constexpr std::size_t kMost = 1000;  // beyond: dropped
  std::mutex mutex;
  std::vector<std::pair<LogLevel, std::string>> waiting;
  bool announced = false;
};
Lines& lines() {
  static auto* held = new Lines;
  return *held;
}

int deliver_lines(void*) {
  std::vector<std::pair<LogLevel, std::string>> taken;
  {
    const std::lock_guard lock(lines().mutex);
    taken.swap(lines().waiting);
    lines().announced = false;
  }
  for (const auto& [level, text] : taken) {
    if (python_sink().is_none()) break;
    try {
      python_sink()(static_cast<int>(level), py::str(text.data(), text.size()));
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("fastserve log sink");
    }
  }
  return 0;
}

void log_to_python(LogLevel level, std::string_view message) {
  if (Py_IsInitialized() == 0) return;
  const std::lock_guard lock(lines().mutex);
  if (lines().waiting.size() < Lines::kMost) lines().waiting.emplace_back(level, message);
  // The one Python call that needs no lock. It fails when the interpreter has too much of that sort: the next line tries again.
  if (!lines().announced) lines().announced = Py_AddPendingCall(&deliver_lines, nullptr) == 0;
}

void use_sink(py::object sink) {
  set_log_sink(sink.is_none() ? nullptr : &log_to_python);
  python_sink() = std::move(sink);
}

}  // namespace
}  // namespace fastserve::bind

PYBIND11_MODULE(_core, module) {
  module.doc() = "The C++ engine of fastserve. Internal: programs use fastserve.Engine.";
  module.attr("version") = FASTSERVE_VERSION;
  fastserve::bind::register_errors(module);
  fastserve::bind::register_interpreter(module);
  module.def("set_log_sink", &fastserve::bind::use_sink, py::arg("sink"));
  fastserve::bind::register_status(module);
  fastserve::bind::register_engine(module);
  fastserve::bind::register_cpu(module);
  fastserve::bind::register_pinned(module);
  fastserve::bind::register_cuda_devices(module);
  fastserve::bind::register_local_server(module);
  fastserve::bind::register_local_client(module);
  fastserve::bind::register_port(module);
}
