// While it lives, the calling thread runs at a lower priority, so that compiling a model does not disturb the serving ones.
//
// With `when_idle` the thread gets only the CPU time that nobody else wants (SCHED_IDLE, sched(7)): whoever serves preempts it
// at once, where a thread of low nice value may finish its slice of some milliseconds first. On a machine that is never idle it
// would not get far, so hurry() lets those that have waited for long go on at `nice`.
//
// On Linux priorities belong to a thread and new threads inherit them: the inference threads that a vendor's library starts
// while it loads would stay slow. The destructor therefore also restores the threads that appeared meanwhile, but for other
// threads that load. A vendor's threads that were there before keep their priority: they may be serving. Where the
// process may not raise a priority again (no CAP_SYS_NICE, small RLIMIT_NICE), nothing is lowered.
// Thread: one; hurry: any.
#pragma once

#include <sys/types.h>

#include <vector>

#include "base/clock.h"

namespace fastserve {

class LoaderPriority {
 public:
  // `steps`: of nice below the priority that the thread has.
  explicit LoaderPriority(int steps, bool when_idle = false);
  ~LoaderPriority();
  LoaderPriority(const LoaderPriority&) = delete;
  LoaderPriority& operator=(const LoaderPriority&) = delete;

  bool lowered() const { return lowered_; }

  // All that have lived for longer, in this process: they and their threads no longer wait for idle time.
  static void hurry(Nanos patience);

 private:
  void for_own_threads(int policy, int nice) const;

  const int nice_;
  const pid_t thread_;
  const Nanos began_;
  int former_ = 0;
  bool lowered_ = false;
  bool idle_ = false;  // guarded by the list's mutex
  std::vector<pid_t> threads_before_;
};

}  // namespace fastserve
