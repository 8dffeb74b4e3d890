#include "bind/interpreter.h"

#include <pthread.h>
#include <unistd.h>

#include <string>

namespace py = pybind11;

namespace fastserve::bind {
namespace {

std::atomic<bool> g_ended{false};           // seq_cst, with g_returning: one of the two sees the other
std::atomic<std::uint32_t> g_returning{0};  // threads between their look at g_ended and having the lock
std::atomic<bool> g_has_engines{false};  // this process, or the one that it was forked from, made an engine
std::atomic<unsigned long> g_main_thread{0};  // Python's number for it
pthread_t g_ending_thread{};

void wait_returned() {
  while (g_returning.load(std::memory_order_seq_cst) != 0) ::usleep(100);
}

// Returns with the right to ask for the lock, counted in g_returning; or never.
void come_back() {
  g_returning.fetch_add(1, std::memory_order_seq_cst);
  if (!g_ended.load(std::memory_order_seq_cst) || ::pthread_equal(::pthread_self(), g_ending_thread) != 0)
    return;
  g_returning.fetch_sub(1, std::memory_order_seq_cst);
  for (;;) ::pause();
}

void after_fork_in_child() {
  if (!g_has_engines.load(std::memory_order_relaxed)) return;
  ForkMark::forks.fetch_add(1, std::memory_order_relaxed);
  g_returning.store(0, std::memory_order_relaxed);
}

}  // namespace

std::atomic<std::uint32_t> ForkMark::forks{0};

Unlocked::~Unlocked() {
  come_back();
  PyEval_RestoreThread(state_);
  g_returning.fetch_sub(1, std::memory_order_seq_cst);
}

Locked::Locked() {
  come_back();
  state_ = PyGILState_Ensure();
  g_returning.fetch_sub(1, std::memory_order_seq_cst);
}

Locked::~Locked() { PyGILState_Release(state_); }

KeptObject::~KeptObject() {
  if (object_ == nullptr || interpreter_ended() || Py_IsInitialized() == 0) return;
  const Locked lock;
  Py_DECREF(object_);
}

void end_of_interpreter() {
  g_ending_thread = ::pthread_self();
  g_ended.store(true, std::memory_order_seq_cst);
  PyThreadState* state = PyEval_SaveThread();
  wait_returned();
  PyEval_RestoreThread(state);
}

bool interpreter_ended() { return g_ended.load(std::memory_order_seq_cst); }

bool is_main_thread() { return PyThread_get_thread_ident() == g_main_thread.load(std::memory_order_relaxed); }

ForkMark::ForkMark() : made_(forks.load(std::memory_order_relaxed)), process_(::getpid()) {
  g_has_engines.store(true, std::memory_order_relaxed);
}

Status ForkMark::check() const {
  if (!is_child()) return Status::ok();
  return {Code::kFailedPrecondition, "the engine belongs to process " + std::to_string(process_) +
                                         ", from which this one (" + std::to_string(::getpid()) +
                                         ") was forked; its threads are not here: start processes with "
                                         "'spawn' or 'forkserver', or fork before "
                                         "the first Engine is made"};
}

Status check_may_make_engine() {
  if (interpreter_ended()) return unavailable("the interpreter is ending");
  if (ForkMark::forks.load(std::memory_order_relaxed) == 0) return Status::ok();
  return {Code::kFailedPrecondition,
          "this process was forked from one that had made an engine, whose locks and threads do not work "
          "here: start "
          "processes with 'spawn' or 'forkserver', or fork before the first Engine is made"};
}

void register_interpreter(py::module_& module) {
  g_main_thread.store(
      py::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>(),
      std::memory_order_relaxed);
  ::pthread_atfork(nullptr, nullptr, &after_fork_in_child);
  module.def("end_of_interpreter", &end_of_interpreter);
}

}  // namespace fastserve::bind
