// _core.Port: submissions whose results are collected in bursts: by an asyncio loop (infer_async), by the one thread that
// completes an engine's futures (submit), or by whoever walks an iterator of batches (map).
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <vector>

#include "bind/engine.h"
#include "bind/errors.h"
#include "bind/fast_call.h"
#include "engine/trace.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

constexpr int kSignalPeriodMs =
    50;  // a signal may have been delivered to another thread than the one that sleeps
constexpr useconds_t kWaiterLeavesUs = 100;

// Thread: any, with the interpreter lock held, which guards everything but the completion queue.
class Port {
 public:
  explicit Port(PyEngine& engine)
      : mark_(engine.mark()),
        engine_(engine.shared()),
        completions_(std::make_unique<CompletionQueue>(CompletionQueue::Wake::kEventFd)),
        submitter_(std::make_unique<Submitter>(*engine_)) {}
  ~Port() { close(); }
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;

  int fd() const { return completions_ == nullptr ? -1 : completions_->event_fd(); }
  std::size_t in_flight() const { return all_.size() - idle_.size(); }

  // The call's number, for cancel. The tag comes back from take(); on an exception it does not.
  std::size_t submit(PyObject* tag, const CallArguments& arguments) {
    raise_if_error(mark_.check());
    if (!engine_ || refuses_) raise(unavailable("the engine is closed"));
    const std::size_t number = take_call();
    Call& call = *all_[number];
    call.request.completions = completions_.get();
    call.request.owner_tag = number;
    Status status = call.fill(arguments, *engine_);
    if (status.is_ok()) status = submitter_->submit(call.request);
    if (!status.is_ok()) {
      recycle(number);
      raise(status);
    }
    call.tag = py::reinterpret_borrow<py::object>(tag);
    return number;
  }

  void flush() {
    if (engine_ && !mark_.is_child()) submitter_->flush();
  }

  // Whether it was still out; what waits in the queue is answered CANCELLED at once. The tag tells whether the number is still
  // this call's.
  bool cancel(std::size_t number, const py::object& tag) {
    if (mark_.is_child() || number >= all_.size() || !all_[number]->tag.is(tag)) return false;
    all_[number]->request.cancel();
    return true;
  }

  // And takes nothing more.
  void cancel_all() {
    if (mark_.is_child()) return;
    refuses_ = true;
    for (const auto& call : all_) {
      if (call->tag) call->request.cancel();
    }
  }

  // [(tag, outputs, error)]
  py::list take() {
    py::list results;
    each_ready([&](const py::object& tag, const py::object& outputs, const py::object& error) {
      results.append(py::make_tuple(tag, outputs, error));
    });
    return results;
  }

  // Tags are asyncio futures: each gets its result, unless its caller gave up.
  void resolve() {
    static const std::array<PyObject*, 3> names{PyUnicode_InternFromString("done"),
                                                PyUnicode_InternFromString("set_result"),
                                                PyUnicode_InternFromString("set_exception")};
    each_ready([&](const py::object& tag, const py::object& outputs, const py::object& error) {
      const auto done = py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(tag.ptr(), names[0]));
      if (!done) throw py::error_already_set();
      if (done.ptr() == Py_True) return;
      const bool failed = !error.is_none();
      const auto ignored = py::reinterpret_steal<py::object>(
          PyObject_CallMethodOneArg(tag.ptr(), names[failed ? 2 : 1], failed ? error.ptr() : outputs.ptr()));
      if (!ignored) throw py::error_already_set();
    });
  }

  // Blocks until there is something to take, wake() was called or `most_ms` passed (-1: no limit); on the main thread signals are
  // looked after. Who shares the port with another taker needs a limit: there may be nothing left to wait for.
  void wait(int most_ms) {
    raise_if_error(mark_.check());
    if (completions_ == nullptr) return;
    const bool signals = is_main_thread();
    for (;;) {
      pollfd ready{completions_->event_fd(), POLLIN, 0};
      int found = 0;
      ++waiters_;
      {
        const Unlocked unlocked;
        found = ::poll(&ready, 1, most_ms < 0 && signals ? kSignalPeriodMs : most_ms);
      }
      --waiters_;
      if (found > 0) return;
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (most_ms >= 0) return;
    }
  }

  void wake() {
    if (completions_ != nullptr && !mark_.is_child()) completions_->wake_self();
  }

  // Waits for what is out (no Python is called), so that no borrowed array outlives its request; its results are dropped. Ends
  // every wait().
  void close() {
    if (!engine_ || is_closing_) return;
    if (mark_.is_child()) return leave_to_parent();
    refuses_ = is_closing_ = true;
    while (in_flight() != 0) {
      flush();
      for (Response* response = wait_for_some(); response != nullptr;) {
        Response* next = response->next_in_intake;
        recycle(response->request->owner_tag);
        response = next;
      }
    }
    while (waiters_ != 0) {
      completions_->wake_self();
      const Unlocked unlocked;
      ::usleep(kWaiterLeavesUs);
    }
    idle_.clear();
    all_.clear();
    submitter_.reset();
    completions_.reset();
    engine_.reset();
  }

 private:
  std::size_t take_call() {
    if (idle_.empty()) {
      all_.push_back(std::make_unique<Call>());
      idle_.reserve(all_.size());
      return all_.size() - 1;
    }
    const std::size_t number = idle_.back();
    idle_.pop_back();
    return number;
  }

  void recycle(std::size_t number) {
    all_[number]->reset();
    idle_.push_back(number);
  }

  template <class Each>
  void each_ready(Each&& each) {
    if (mark_.is_child() || completions_ == nullptr) return;
    for (Response* response = completions_->take_all(); response != nullptr;) {
      Response* next = response->next_in_intake;
      try {
        finish(*response, each);
      } catch (py::error_already_set& error) {  // a loop that is closed; the others are not to suffer
        error.discard_as_unraisable("fastserve: a result that nobody could be given");
      }
      response = next;
    }
  }

  template <class Each>
  void finish(Response& response, Each&& each) {
    const std::size_t number = response.request->owner_tag;
    Call& call = *all_[number];
    engine_->tracer().record(call.request);
    const py::object tag = std::move(call.tag);
    py::object outputs = py::none();
    py::object error = py::none();
    try {
      Status status = call.failure();
      if (status.is_ok()) {
        auto taken = call.take_outputs();
        status = taken.status();
        if (status.is_ok()) outputs = std::move(taken).value();
      }
      if (!status.is_ok()) error = make_exception(status);
    } catch (py::error_already_set& raised) {  // no memory for an array
      error = raised.value();
    }
    recycle(number);
    each(tag, outputs, error);
  }

  Response* wait_for_some() {
    const Unlocked unlocked;
    pollfd ready{completions_->event_fd(), POLLIN, 0};
    while (::poll(&ready, 1, -1) < 0 && errno == EINTR) {
    }
    return completions_->take_all();
  }

  // In a forked child the engine's threads are not there to answer: nothing may be waited for or freed.
  void leave_to_parent() {
    new std::shared_ptr<Engine>(std::move(engine_));
    static_cast<void>(completions_.release());
    static_cast<void>(submitter_.release());
    for (auto& call : all_) static_cast<void>(call.release());
    all_.clear();
    idle_.clear();
  }

  const ForkMark mark_;
  std::shared_ptr<Engine> engine_;
  std::unique_ptr<CompletionQueue> completions_;
  std::unique_ptr<Submitter> submitter_;
  std::vector<std::unique_ptr<Call>> all_;  // never fewer until close: numbers stay valid
  std::vector<std::size_t> idle_;
  int waiters_ = 0;  // threads in wait()
  bool refuses_ = false;
  bool is_closing_ = false;
};

// submit(tag, model, inputs, version, outputs, request_id, priority, timeout)
PyObject* submit(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  return fast_call(CallArguments::kCount + 1, count, [&] {
    return PyLong_FromSize_t(py::handle(self).cast<Port&>().submit(arguments[0], {arguments + 1}));
  });
}

PyObject* resolve(PyObject* self, PyObject* const* /*arguments*/, Py_ssize_t count) {
  return fast_call(0, count, [&] {
    py::handle(self).cast<Port&>().resolve();
    return Py_NewRef(Py_None);
  });
}

}  // namespace

void register_port(py::module_& module) {
  py::class_<Port> port(module, "Port");
  port.def(py::init<PyEngine&>(), py::arg("engine"))
      .def_property_readonly("fd", &Port::fd)
      .def_property_readonly("in_flight", &Port::in_flight)
      .def("flush", &Port::flush)
      .def("cancel", &Port::cancel, py::arg("number"), py::arg("tag"))
      .def("cancel_all", &Port::cancel_all)
      .def("take", &Port::take)
      .def("wait", &Port::wait, py::arg("most_ms") = -1)
      .def("wake", &Port::wake)
      .def("close", &Port::close);
  add_fast_method(port, "submit", &submit);
  add_fast_method(port, "resolve", &resolve);
}

}  // namespace fastserve::bind
