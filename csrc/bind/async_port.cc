// _core.AsyncPort: infer_async's other half. Submissions of one asyncio loop, results collected in bursts.
#include <poll.h>
#include <pybind11/stl.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "bind/engine.h"
#include "bind/errors.h"
#include "bind/numpy_tensor.h"
#include "engine/trace.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

// Thread: the loop's, with the interpreter lock held; results arrive in `completions_` from anywhere.
class AsyncPort {
 public:
  explicit AsyncPort(PyEngine& engine)
      : engine_(engine.shared()), completions_(CompletionQueue::Wake::kEventFd), submitter_(*engine_) {}
  ~AsyncPort() { close(); }

  int fd() const { return completions_.event_fd(); }

  void submit(py::object tag, CallArguments arguments) {
    if (!engine_) raise(unavailable("the engine is closed"));
    std::unique_ptr<Call> call = take_call();
    call->tag = std::move(tag);
    call->request.completions = &completions_;
    call->request.owner = call.get();
    Status status = call->fill(std::move(arguments));
    if (status.is_ok()) status = submitter_.submit(call->request);
    if (!status.is_ok()) {
      recycle(std::move(call));
      raise(status);
    }
    ++in_flight_;
    static_cast<void>(call.release());  // the engine's until take() sees it again
  }

  void flush() { submitter_.flush(); }

  py::list take() {
    py::list results;
    Response* response = completions_.take_all();
    while (response != nullptr) {
      Response* next = response->next_in_intake;
      results.append(finish(*response));
      response = next;
    }
    return results;
  }

  // Waits for what is out (no Python is called), so that no borrowed array outlives its request.
  void close() {
    while (in_flight_ > 0) {
      flush();
      Response* response = wait_for_some();
      while (response != nullptr) {
        Response* next = response->next_in_intake;
        recycle(std::unique_ptr<Call>(static_cast<Call*>(response->request->owner)));
        --in_flight_;
        response = next;
      }
    }
    idle_.clear();
    engine_.reset();
  }

 private:
  std::unique_ptr<Call> take_call() {
    if (idle_.empty()) return std::make_unique<Call>();
    auto call = std::move(idle_.back());
    idle_.pop_back();
    return call;
  }

  void recycle(std::unique_ptr<Call> call) {
    call->reset();
    idle_.push_back(std::move(call));
  }

  py::tuple finish(Response& response) {
    std::unique_ptr<Call> call(static_cast<Call*>(response.request->owner));
    --in_flight_;
    engine_->tracer().record(*response.request);
    py::object tag = std::move(call->tag);
    py::object outputs = py::none();
    py::object error = py::none();
    if (response.status.is_ok()) {
      outputs = copy_outputs(response, call->request.version->signature);
    } else {
      error = make_exception(response.status);
    }
    recycle(std::move(call));
    return py::make_tuple(std::move(tag), std::move(outputs), std::move(error));
  }

  Response* wait_for_some();

  std::shared_ptr<Engine> engine_;
  CompletionQueue completions_;
  Submitter submitter_;
  std::size_t in_flight_ = 0;
  std::vector<std::unique_ptr<Call>> idle_;
};

Response* AsyncPort::wait_for_some() {
  const py::gil_scoped_release unlocked;
  pollfd ready{completions_.event_fd(), POLLIN, 0};
  while (::poll(&ready, 1, -1) < 0 && errno == EINTR) {
  }
  return completions_.take_all();
}

}  // namespace

void register_async_port(py::module_& module) {
  py::class_<AsyncPort>(module, "AsyncPort")
      .def(py::init<PyEngine&>(), py::arg("engine"))
      .def_property_readonly("fd", &AsyncPort::fd)
      .def(
          "submit",
          [](AsyncPort& self, py::object tag, std::string model, py::object inputs, std::string version,
             std::vector<std::string> outputs, std::string request_id, std::uint32_t priority,
             std::optional<double> timeout) {
            self.submit(std::move(tag),
                        call_arguments(std::move(model), std::move(inputs), std::move(version),
                                       std::move(outputs), std::move(request_id), priority, timeout));
          },
          py::arg("tag"), py::arg("model"), py::arg("inputs"), py::arg("version") = "",
          py::arg("outputs") = py::tuple(), py::arg("request_id") = "", py::arg("priority") = 0,
          py::arg("timeout_seconds") = py::none())
      .def("flush", &AsyncPort::flush)
      .def("take", &AsyncPort::take)
      .def("close", &AsyncPort::close);
}

}  // namespace fastserve::bind
