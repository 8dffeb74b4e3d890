#include "bind/engine.h"

#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include "bind/errors.h"
#include "bind/numpy_tensor.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

constexpr double kForeverSeconds = 1e9;

Nanos drain_limit(std::optional<double> seconds) {
  if (!seconds || *seconds > kForeverSeconds) return kNever;
  return static_cast<Nanos>(std::max(0.0, *seconds) * static_cast<double>(kSecond));
}

Progress with_interpreter_lock(py::object callback) {
  if (callback.is_none()) return {};
  // The last copy may die on this (loader) thread without the lock: hold it while dropping the reference.
  auto held = std::shared_ptr<py::object>(new py::object(std::move(callback)), [](py::object* object) {
    const py::gil_scoped_acquire lock;
    delete object;
  });
  return [held](double fraction, std::string_view what) {
    const py::gil_scoped_acquire lock;
    try {
      (*held)(fraction, py::str(what.data(), what.size()));
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("fastserve progress callback");
    }
  };
}

void load(PyEngine& self, const LoadSpec& spec, py::object callback) {
  const std::shared_ptr<Engine> engine = self.shared();
  const Progress progress = with_interpreter_lock(std::move(callback));
  Status status;
  {
    const py::gil_scoped_release unlocked;
    status = engine->load(spec, progress);
  }
  raise_if_error(status);
}

void unload(PyEngine& self, const std::string& model, std::int64_t version, std::optional<double> seconds) {
  const std::shared_ptr<Engine> engine = self.shared();
  Status status;
  {
    const py::gil_scoped_release unlocked;
    status = engine->unload(model, version, drain_limit(seconds));
  }
  raise_if_error(status);
}

bool drain(PyEngine& self, std::optional<double> seconds) {
  const std::shared_ptr<Engine> engine = self.shared();
  const py::gil_scoped_release unlocked;
  return engine->drain(drain_limit(seconds));
}

VersionStatus resolve(PyEngine& self, const std::string& model, const std::string& version) {
  auto found = self.engine().resolve(model, version);
  raise_if_error(found.status());
  const std::int64_t number = (*found)->number;
  (*found)->release();
  for (VersionStatus& status : self.engine().status()) {
    if (status.model == model && status.version == number) return std::move(status);
  }
  raise(not_found("Request for unknown model: '" + model + "' version " + std::to_string(number) +
                  " is not found"));
}

VersionStatistics statistics(PyEngine& self, const std::string& model, std::int64_t version) {
  auto found = self.engine().statistics(model, version);
  raise_if_error(found.status());
  return std::move(found).value();
}

}  // namespace

PyEngine::PyEngine(EngineOptions options) : engine_(std::make_shared<Engine>(options)) {}

PyEngine::~PyEngine() { close(); }

std::shared_ptr<Engine> PyEngine::shared() {
  if (!engine_) raise(unavailable("the engine is closed"));
  return engine_;
}

Engine& PyEngine::engine() { return *shared(); }

void PyEngine::close() {
  idle_calls_.clear();
  std::shared_ptr<Engine> last = std::move(engine_);
  const py::gil_scoped_release unlocked;  // drains; progress callbacks and the log sink may need the lock
  last.reset();
}

std::unique_ptr<PyEngine::BlockingCall> PyEngine::take_call() {
  if (idle_calls_.empty()) return std::make_unique<BlockingCall>(engine());
  auto call = std::move(idle_calls_.back());
  idle_calls_.pop_back();
  return call;
}

py::dict PyEngine::infer(CallArguments arguments) {
  const std::shared_ptr<Engine> alive = shared();
  auto blocking = take_call();
  Call& call = blocking->call;
  call.request.completions = &blocking->completions;
  Status status = call.fill(std::move(arguments));
  py::dict outputs;
  if (status.is_ok()) {
    std::optional<Result<Response*>> answer;
    {
      const py::gil_scoped_release unlocked;
      answer.emplace(blocking->submitter.infer(call.request));
    }
    status = answer->is_ok() ? answer->value()->status : answer->status();
    if (status.is_ok()) outputs = copy_outputs(call.request.response, call.request.version->signature);
  }
  call.reset();
  if (engine_) idle_calls_.push_back(std::move(blocking));
  raise_if_error(status);
  return outputs;
}

CallArguments call_arguments(std::string model, py::object inputs, std::string version,
                             std::vector<std::string> outputs, std::string request_id, std::uint32_t priority,
                             std::optional<double> timeout_seconds) {
  py::dict given =
      py::isinstance<py::dict>(inputs) ? py::reinterpret_borrow<py::dict>(inputs) : py::dict(inputs);
  return {std::move(model),      std::move(given), std::move(version), std::move(outputs),
          std::move(request_id), priority,         timeout_seconds};
}

// (name, count, device; -1: every device); none at all: no limiter.
using RateResources = std::vector<std::tuple<std::string, std::int64_t, int>>;

static RateLimits rate_limits(const std::optional<RateResources>& given) {
  RateLimits limits;
  limits.on = given.has_value();
  for (const auto& [name, count, device] : given.value_or(RateResources())) {
    limits.resources.push_back({name, count, device});
  }
  return limits;
}

void register_engine(py::module_& module) {
  py::class_<PyEngine> engine(module, "Engine");
  register_trace(engine);
  register_response_cache(engine);
  register_scheduling(engine);
  engine
      .def(py::init([](std::int64_t max_queue, int nice, const std::optional<RateResources>& rate_resources,
                       std::uint64_t response_cache_bytes) {
             EngineOptions options;
             options.response_cache_bytes = response_cache_bytes;
             options.loader_nice = nice;
             options.default_max_queue_requests = max_queue;
             options.rate_limits = rate_limits(rate_resources);
             return std::make_unique<PyEngine>(std::move(options));
           }),
           py::kw_only(), py::arg("default_max_queue_requests") = 0, py::arg("loader_nice") = 10,
           py::arg("rate_resources") = py::none(), py::arg("response_cache_bytes") = 0)
      .def(
          "add_plugin",
          [](PyEngine& self, std::string backend, std::string path) {
            self.engine().backends().add_plugin(std::move(backend), std::move(path));
          },
          py::arg("backend"), py::arg("shared_object_path"))
      .def("load", &load, py::arg("spec"), py::arg("progress") = py::none())
      .def("unload", &unload, py::arg("model"), py::arg("version"), py::arg("drain_seconds") = py::none())
      .def("drain", &drain, py::arg("seconds") = py::none())
      .def("close", &PyEngine::close)
      .def("status", [](PyEngine& self) { return self.engine().status(); })
      .def(
          "ready",
          [](PyEngine& self, const std::string& model, const std::string& version) {
            return self.engine().ready(model, version);
          },
          py::arg("model"), py::arg("version") = "")
      .def("resolve", &resolve, py::arg("model"), py::arg("version") = "")
      .def("statistics", &statistics, py::arg("model"), py::arg("version"))
      .def(
          "infer",
          [](PyEngine& self, std::string model, py::object inputs, std::string version,
             std::vector<std::string> outputs, std::string request_id, std::uint32_t priority,
             std::optional<double> timeout) {
            return self.infer(call_arguments(std::move(model), std::move(inputs), std::move(version),
                                             std::move(outputs), std::move(request_id), priority, timeout));
          },
          py::arg("model"), py::arg("inputs"), py::arg("version") = "", py::arg("outputs") = py::tuple(),
          py::arg("request_id") = "", py::arg("priority") = 0, py::arg("timeout_seconds") = py::none())
      // The Engine* for _io, which is another extension over the same libfastserve; valid while the object lives and is open.
      .def("_capsule", [](PyEngine& self) { return py::capsule(&self.engine(), "fastserve.Engine"); });
}

}  // namespace fastserve::bind
