#include "bind/engine.h"

#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include "bind/errors.h"
#include "bind/fast_call.h"
#include "engine/loader_priority.h"
#include "engine/trace.h"

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
  const auto held = std::make_shared<KeptObject>(std::move(callback));
  return [held](double fraction, std::string_view what) {
    const Locked lock;
    try {
      held->get()(fraction, py::str(what.data(), what.size()));
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
    const Unlocked unlocked;
    status = engine->load(spec, progress);
  }
  raise_if_error(status);
}

bool give_up_load(PyEngine& self, const std::string& model, std::int64_t version) {
  return self.engine().give_up_load(model, version);
}

void unload(PyEngine& self, const std::string& model, std::int64_t version, std::optional<double> seconds) {
  const std::shared_ptr<Engine> engine = self.shared();
  Status status;
  {
    const Unlocked unlocked;
    status = engine->unload(model, version, drain_limit(seconds));
  }
  raise_if_error(status);
}

bool drain(PyEngine& self, std::optional<double> seconds) {
  const std::shared_ptr<Engine> engine = self.shared();
  const Unlocked unlocked;
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

// Runs longer than this are not run on the main thread, where they would hold up signals; and those that are this short are run
// with the interpreter lock held, because other Python threads fight for it otherwise: 8 threads on a small model, 2 busy cores:
// p50 7 to 9 us and 59,000 to 108,000 calls/s; with the lock let go 61 to 139 us and 24,000 to 40,000.
constexpr Nanos kLongestOnMainNs = 20 * kMillisecond;
constexpr Nanos kLongestLockedNs = 20 * kMicrosecond;
constexpr Nanos kSignalPeriodNs =
    50 * kMillisecond;  // how often the main thread looks for signals while it waits

struct PyEngine::Held {
  explicit Held(EngineOptions options) : engine(std::move(options)) {}
  std::vector<std::unique_ptr<PythonBackend>> backends;
  Engine engine;
  std::shared_ptr<void> beside;  // borrows the engine: ends before it
};

PyEngine::PyEngine(EngineOptions options) : held_(std::make_shared<Held>(std::move(options))), used_(held_) {}

PyEngine::~PyEngine() { close(kNever); }

std::shared_ptr<Engine> PyEngine::shared() {
  raise_if_error(mark_.check());
  if (!held_) raise(unavailable("the engine is closed"));
  return {held_, &held_->engine};
}

void PyEngine::keep_beside(std::shared_ptr<void> what) { held_->beside = std::move(what); }

void PyEngine::add_backend(std::string name, PythonBackend::Declared declared, py::object make) {
  Engine& to = engine();
  held_->backends.push_back(
      std::make_unique<PythonBackend>(std::move(name), std::move(declared), std::move(make)));
  to.backends().add(*held_->backends.back());
}

void PyEngine::close(Nanos drain_ns) {
  std::shared_ptr<Held> last = std::move(held_);
  if (!last) return;
  if (mark_.is_child()) {  // what it would wait for is not in this process
    new std::shared_ptr<Held>(std::move(last));
    for (auto* calls : {&idle_calls_, &abandoned_}) {
      for (auto& call : *calls) static_cast<void>(call.release());
    }
    return;
  }
  auto abandoned = std::move(abandoned_);
  {
    const Unlocked unlocked;
    if (drain_ns == kNever) last->engine.drain(kNever);
    for (auto& call : abandoned) {
      while (call->completions.wait(kNever) == nullptr) {
      }
    }
  }
  for (auto& call : abandoned) call->call.reset();
  abandoned.clear();
  idle_calls_.clear();
  const Unlocked unlocked;
  for (const VersionStatus& version : last->engine.status()) {
    static_cast<void>(last->engine.unload(version.model, version.version, drain_ns));
  }
  last.reset();  // an infer on another thread may be the last user
}

std::unique_ptr<PyEngine::BlockingCall> PyEngine::take_call(Engine& engine) {
  if (!abandoned_.empty()) reap_abandoned();
  if (idle_calls_.empty()) return std::make_unique<BlockingCall>(engine);
  auto call = std::move(idle_calls_.back());
  idle_calls_.pop_back();
  return call;
}

void PyEngine::reap_abandoned() {
  std::erase_if(abandoned_, [](const auto& call) {
    if (call->completions.take_all() == nullptr) return false;
    call->call.reset();
    return true;
  });
}

// To the final response, or the error of submit.
Status PyEngine::run(BlockingCall& blocking) {
  FS_ASSIGN_OR_RETURN(const Nanos expected, blocking.submitter.begin_infer(blocking.call.request));
  if (expected == kNever) return Status::ok();  // an instance's thread has it
  if ((expected == 0 || expected > kLongestOnMainNs) && is_main_thread()) {
    blocking.submitter.leave_to_instance();
  } else if (expected != 0 && expected <= kLongestLockedNs) {
    blocking.submitter.run_begun();
  } else {
    const Unlocked unlocked;
    blocking.submitter.run_begun();
  }
  return Status::ok();
}

// False: a signal's exception is set.
bool PyEngine::wait(BlockingCall& blocking) {
  if (blocking.completions.take_all() != nullptr) return true;
  const bool signals = is_main_thread();
  for (;;) {
    {
      const Unlocked unlocked;
      const Nanos until = signals ? monotonic_now() + kSignalPeriodNs : kNever;
      if (blocking.completions.wait(until) != nullptr) return true;
    }
    if (signals && PyErr_CheckSignals() != 0) return false;
  }
}

py::object PyEngine::infer(const CallArguments& arguments) {
  const std::shared_ptr<Engine> alive = shared();
  auto blocking = take_call(*alive);
  Call& call = blocking->call;
  call.request.completions = &blocking->completions;
  Status status = call.fill(arguments, *alive);
  if (status.is_ok()) status = run(*blocking);
  py::object outputs;
  if (status.is_ok()) {
    if (!wait(*blocking)) {
      call.request.cancel();
      abandoned_.push_back(std::move(blocking));  // it reads the caller's arrays until it is answered
      throw py::error_already_set();
    }
    alive->tracer().record(call.request);
    status = call.failure();
  }
  if (status.is_ok()) {
    auto taken = call.take_outputs();
    status = taken.status();
    if (status.is_ok()) outputs = std::move(taken).value();
  }
  call.reset();
  if (held_) idle_calls_.push_back(std::move(blocking));
  raise_if_error(status);
  return outputs;
}

void add_fast_method(py::object type, const char* name, FastMethod method) {
  auto* definition =
      new PyMethodDef{name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(method)),
                      METH_FASTCALL, nullptr};  // lives as long as the type
  PyObject* descriptor = PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(type.ptr()), definition);
  if (descriptor == nullptr) throw py::error_already_set();
  type.attr(name) = py::reinterpret_steal<py::object>(descriptor);
}

static PyObject* infer(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  return fast_call(CallArguments::kCount, count,
                   [&] { return py::handle(self).cast<PyEngine&>().infer({arguments}).release().ptr(); });
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
  register_labels(module, engine);
  register_sleep(module, engine);
  register_workers(module, engine);
  register_regions(module, engine);
  register_gpu(module, engine);
  register_scheduling(engine);
  engine
      .def(py::init([](std::int64_t max_queue, int nice, const std::optional<RateResources>& rate_resources,
                       std::uint64_t response_cache_bytes) {
             raise_if_error(check_may_make_engine());
             EngineOptions options;
             options.response_cache_bytes = response_cache_bytes;
             options.loader_nice = nice;
             options.default_max_queue_requests = max_queue;
             options.rate_limits = rate_limits(rate_resources);
             return std::make_unique<PyEngine>(std::move(options));
           }),
           py::kw_only(), py::arg("default_max_queue_requests") = 0, py::arg("loader_nice") = 10,
           py::arg("rate_resources") = py::none(), py::arg("response_cache_bytes") = 0)
      .def("load_when_idle", [](PyEngine& self) { self.engine().load_when_idle(); })
      .def_static(
          "hurry_loads",
          [](double patience_seconds) {
            LoaderPriority::hurry(static_cast<Nanos>(patience_seconds * static_cast<double>(kSecond)));
          },
          py::arg("patience_seconds"))
      .def(
          "add_plugin",
          [](PyEngine& self, std::string backend, std::string path) {
            self.engine().backends().add_plugin(std::move(backend), std::move(path));
          },
          py::arg("backend"), py::arg("shared_object_path"))
      .def("load", &load, py::arg("spec"), py::arg("progress") = py::none())
      .def("give_up_load", &give_up_load, py::arg("model"), py::arg("version"))
      .def("unload", &unload, py::arg("model"), py::arg("version"), py::arg("drain_seconds") = py::none())
      .def("drain", &drain, py::arg("seconds") = py::none())
      .def("close", [](PyEngine& self) { self.close(kNever); })
      .def("status", [](PyEngine& self) { return self.engine().status(); })
      .def(
          "ready",
          [](PyEngine& self, const std::string& model, const std::string& version) {
            return self.engine().ready(model, version) && workers_can_serve(self, model, version);
          },
          py::arg("model"), py::arg("version") = "")
      .def("resolve", &resolve, py::arg("model"), py::arg("version") = "")
      .def("statistics", &statistics, py::arg("model"), py::arg("version"))
      .def("shut_down", [](PyEngine& self) { self.close(0); })
      .def_property_readonly("is_used", &PyEngine::is_used)
      .def_property_readonly("is_forked", [](PyEngine& self) { return self.mark().is_child(); })
      .def(
          "add_python_backend",
          [](PyEngine& self, std::string name, std::vector<TensorSpec> inputs,
             std::vector<TensorSpec> outputs, std::int64_t max_batch_rows, py::object make) {
            self.add_backend(std::move(name), {std::move(inputs), std::move(outputs), max_batch_rows},
                             std::move(make));
          },
          py::arg("name"), py::arg("inputs"), py::arg("outputs"), py::arg("max_batch_rows"), py::arg("make"))
      // The Engine* for _io, which is another extension over the same libfastserve; valid while the object lives and is open.
      .def("_capsule", [](PyEngine& self) { return py::capsule(&self.engine(), "fastserve.Engine"); });
  add_fast_method(engine, "infer", &infer);
}

}  // namespace fastserve::bind
