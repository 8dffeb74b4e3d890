// _core.Engine, and what registers the bound families.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "backend/worker_backend.h"
#include "bind/call.h"
#include "bind/interpreter.h"
#include "bind/python_backend.h"
#include "engine/engine.h"
#include "queue/completion_queue.h"

namespace fastserve::bind {

class PyEngine {
 public:
  explicit PyEngine(EngineOptions options);
  ~PyEngine();

  // Raises UNAVAILABLE after close(), FAILED_PRECONDITION in a forked child.
  Engine& engine() { return *shared(); }
  std::shared_ptr<Engine> shared();
  const ForkMark& mark() const { return mark_; }
  void add_backend(std::string name, PythonBackend::Declared declared, pybind11::object make);
  pybind11::object infer(const CallArguments& arguments);
  // Answers what was admitted (waiting requests only until `drain_ns`), frees the models. In a forked child nothing happens.
  void close(Nanos drain_ns);
  // Whether calls of other threads still use it.
  bool is_used() const { return !used_.expired(); }

  void keep_beside(std::shared_ptr<void> what);  // until just before the engine ends; open engines only
  const std::shared_ptr<WorkerTable> workers = std::make_shared<WorkerTable>();  // bind/workers.cc

 private:
  struct Held;  // the engine and the backends that it must not outlive
  // What one blocking call needs; kept between calls so that a call allocates nothing of it.
  struct BlockingCall {
    explicit BlockingCall(Engine& engine) : completions(CompletionQueue::Wake::kFutex), submitter(engine) {}
    CompletionQueue completions;
    Submitter submitter;
    Call call;
  };
  std::unique_ptr<BlockingCall> take_call(Engine& engine);
  Status run(BlockingCall& blocking);
  bool wait(BlockingCall& blocking);
  void reap_abandoned();

  const ForkMark mark_;
  std::shared_ptr<Held> held_;
  std::weak_ptr<Held> used_;
  std::vector<std::unique_ptr<BlockingCall>> idle_calls_;
  std::vector<std::unique_ptr<BlockingCall>> abandoned_;  // by KeyboardInterrupt, not yet answered
};

// _core methods that are called per request take their arguments as CPython hands them over: pybind11's own way costs 1 us more.
using FastMethod = PyObject* (*)(PyObject* self, PyObject* const* arguments, Py_ssize_t count);
void add_fast_method(pybind11::object type, const char* name, FastMethod method);

void register_engine(pybind11::module_& module);
void register_trace(pybind11::class_<PyEngine>& engine);
void register_scheduling(pybind11::class_<PyEngine>& engine);
void register_warm_up(pybind11::module_& module);  // before register_load_spec, which has it in signatures
void register_load_spec(pybind11::module_& module);
void register_workers(pybind11::module_& module, pybind11::class_<PyEngine>& engine);
// False: the version that a request would get runs in workers, and none of them is up or on its way (a first restart).
bool workers_can_serve(PyEngine& engine, const std::string& model, const std::string& version);
void register_response_cache(pybind11::class_<PyEngine>& engine);
void register_sleep(pybind11::module_& module, pybind11::class_<PyEngine>& engine);
void register_labels(pybind11::module_& module, pybind11::class_<PyEngine>& engine);
void register_status(pybind11::module_& module);
void register_cpu(pybind11::module_& module);
void register_pinned(pybind11::module_& module);
void register_cuda_devices(pybind11::module_& module);
void register_gpu(pybind11::module_& module, pybind11::class_<PyEngine>& engine);
void register_local_server(pybind11::module_& module);
void register_local_client(pybind11::module_& module);
void register_port(pybind11::module_& module);
void register_regions(pybind11::module_& module, pybind11::class_<PyEngine>& engine);

}  // namespace fastserve::bind
