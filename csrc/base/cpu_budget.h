// The CPUs of the process as one budget that the instances of all models share.
//
//  - threads(): how many threads a model is compiled for. What the affinity and the cgroup's quota allow, or --cpu-threads.
//  - turns: where the machine would run more threads at once than the budget has (a quota, or --cpu-threads below the
//    affinity), heavy runs take their threads out of the budget before they start and give them back at the end, first come
//    first served. Without that, M models of N threads use M x N: over a quota the kernel then stops the whole process,
//    front end included, for the rest of each 100 ms. Where the budget is all that the machine lets us have, nothing is
//    held back: the kernel shares out CPUs at least as well (csrc/README.md has the figures).
//    Light runs never take a turn, so that one of 10 us does not wait behind one of 40 ms.
//  - runs(): how many batches were started and ended for somebody, so that whoever measures can tell an idle process.
//
// Thread: any.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "base/cache_line.h"
#include "base/clock.h"

namespace fastserve {

class CpuBudget {
 public:
  // `machine`: CPUs that the process may be scheduled on; `usable`: the same within the quota. usable <= machine.
  CpuBudget(int machine, int usable);
  static CpuBudget& process();  // read from the system when first asked for

  // --cpu-threads. 0: all that are usable. Before the first model is loaded. At most `machine`, at least 1.
  void limit_threads(int threads);
  int threads() const { return threads_.load(std::memory_order_relaxed); }

  // --- turns. The object stays where it is from take() until give_back().
  struct Turn {
    void (*start)(Turn& turn) = nullptr;  // by the caller of take(), as the next two: the run may start
    void* owner = nullptr;                // for `start`
    int threads = 1;                      // of the run; more than the budget counts as the budget
    bool held = false;
    Turn* next = nullptr;
  };
  // True: start now. False: `start` is called later, on the thread that gives the room back; it must not throw.
  bool take(Turn& turn);
  void give_back(Turn& turn);  // after every take that ended in a start; calls `start` of those who wait

  // --- runs
  struct Runs {
    std::uint64_t started = 0;
    std::uint64_t ended = 0;
    bool operator==(const Runs&) const = default;
    bool none() const { return started == ended; }
  };
  void run_started() { started_.fetch_add(1, std::memory_order_relaxed); }
  void run_ended() { ended_.fetch_add(1, std::memory_order_relaxed); }
  Runs runs() const;
  // Whether nothing ran and nothing began for `window`: looks, sleeps, looks again. At once when nothing ever ran.
  bool idle_for(Nanos window) const;

 private:
  bool fits(const Turn& turn) const;
  bool gated() const { return threads() < machine_; }

  const int machine_;
  const int usable_;
  std::atomic<int> threads_;
  alignas(kCacheLine) std::atomic<std::uint64_t> started_{0};
  alignas(kCacheLine) std::atomic<std::uint64_t> ended_{0};
  alignas(kCacheLine) std::mutex mutex_;  // guards what follows
  int taken_ = 0;
  Turn* first_ = nullptr;
  Turn* last_ = nullptr;
};

// While one lives on a thread, what this thread runs serves nobody: warm-ups and measurements do not count as runs.
class PreparingScope {
 public:
  PreparingScope() { ++depth(); }
  ~PreparingScope() { --depth(); }
  PreparingScope(const PreparingScope&) = delete;
  PreparingScope& operator=(const PreparingScope&) = delete;
  static bool here() { return depth() != 0; }

 private:
  static int& depth();
};

}  // namespace fastserve
