// While it lives, the calling thread runs at a lower priority, so that compiling a model does not disturb the serving ones.
//
// On Linux a nice value belongs to a thread and new threads inherit it: the inference threads that a vendor's library starts
// while it loads would stay slow. The destructor therefore also restores the threads that appeared meanwhile. Where the
// process may not raise a priority again (no CAP_SYS_NICE, small RLIMIT_NICE), nothing is lowered.
// Thread: one.
#pragma once

#include <sys/types.h>

#include <vector>

namespace fastserve {

class LoaderPriority {
 public:
  explicit LoaderPriority(int nice);
  ~LoaderPriority();
  LoaderPriority(const LoaderPriority&) = delete;
  LoaderPriority& operator=(const LoaderPriority&) = delete;

  bool lowered() const { return lowered_; }

 private:
  int nice_;
  int former_ = 0;
  bool lowered_ = false;
  std::vector<pid_t> threads_before_;
};

}  // namespace fastserve
