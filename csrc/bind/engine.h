// _core.Engine: the C++ engine and the calls of Python threads. Thread: methods are called with the interpreter lock held,
// which also guards `idle_calls_`; blocking ones release it.
#pragma once

#include <pybind11/pybind11.h>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "bind/call.h"
#include "engine/engine.h"
#include "queue/completion_queue.h"

namespace fastserve::bind {

class PyEngine {
 public:
  explicit PyEngine(EngineOptions options);
  ~PyEngine();

  // Raises UNAVAILABLE after close().
  Engine& engine();
  std::shared_ptr<Engine> shared();
  pybind11::dict infer(CallArguments arguments);
  void close();

 private:
  // What one blocking call needs; kept between calls so that a call allocates nothing of it.
  struct BlockingCall {
    explicit BlockingCall(Engine& engine) : completions(CompletionQueue::Wake::kFutex), submitter(engine) {}
    CompletionQueue completions;
    Submitter submitter;
    Call call;
  };
  std::unique_ptr<BlockingCall> take_call();

  std::shared_ptr<Engine> engine_;
  std::vector<std::unique_ptr<BlockingCall>> idle_calls_;
};

void register_engine(pybind11::module_& module);
void register_trace(pybind11::class_<PyEngine>& engine);
void register_scheduling(pybind11::class_<PyEngine>& engine);
void register_warm_up(pybind11::module_& module);  // before register_load_spec, which has it in signatures
void register_load_spec(pybind11::module_& module);
void register_response_cache(pybind11::class_<PyEngine>& engine);
void register_status(pybind11::module_& module);
void register_cpu(pybind11::module_& module);
void register_async_port(pybind11::module_& module);

// Keyword arguments that infer and submit share.
CallArguments call_arguments(std::string model, pybind11::object inputs, std::string version,
                             std::vector<std::string> outputs, std::string request_id, std::uint32_t priority,
                             std::optional<double> timeout_seconds);

}  // namespace fastserve::bind
