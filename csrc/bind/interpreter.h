// What the life of the interpreter means for native code: its lock, its end, and fork.
//
// The end. Python 3.11 ends a thread that asks for the lock while the interpreter goes away, by unwinding its stack; C++ frames do
// not survive that. So end_of_interpreter() runs before (fastserve.engine registers it with atexit): from then on a thread that
// comes back from native code is parked for the rest of the process's life, and those that are just coming back are waited for.
//
// Fork. The child has this process's memory, and none of its threads: an engine there would wait for ever. Everything made
// before a fork knows that it is on the wrong side of it.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <cstdint>

#include "base/status.h"

namespace fastserve::bind {

// Lets the interpreter lock go for a scope.
class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  ~Unlocked();
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  PyThreadState* const state_;
};

// Takes the interpreter lock for a scope, on any thread.
class Locked {
 public:
  Locked();
  ~Locked();
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  PyGILState_STATE state_;
};

// On the thread that ends the interpreter, with the lock; engines are closed. No thread comes back to Python afterwards.
void end_of_interpreter();
bool interpreter_ended();

// Whether signals reach Python on this thread.
bool is_main_thread();

// A Python object for native code that may be freed on any thread, with or without the lock, and after the interpreter's end (then
// the object is left alone).
class KeptObject {
 public:
  explicit KeptObject(pybind11::object object) : object_(object.release().ptr()) {}
  KeptObject(KeptObject&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  KeptObject& operator=(KeptObject&&) = delete;
  ~KeptObject();
  pybind11::handle get() const { return object_; }

 private:
  PyObject* object_;
};

// Forks of processes that had an engine, as this process has seen them: made before the last one = of the parent.
class ForkMark {
 public:
  ForkMark();  // an engine is made
  bool is_child() const { return made_ != forks.load(std::memory_order_relaxed); }
  // FAILED_PRECONDITION in a child of the process that made it.
  Status check() const;

  static std::atomic<std::uint32_t> forks;

 private:
  std::uint32_t made_;
  int process_;
};

// FAILED_PRECONDITION in a process that was forked from one that had made an engine: locks and threads of backends are gone.
Status check_may_make_engine();

void register_interpreter(pybind11::module_& module);

}  // namespace fastserve::bind
