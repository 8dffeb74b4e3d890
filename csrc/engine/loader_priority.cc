#include "engine/loader_priority.h"

#include <linux/capability.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <mutex>
#include <string>
#include <system_error>

namespace fastserve {
namespace {

constexpr int kLowest = 19;  // nice(2)

// Whether this thread may set its nice value back to `nice` (getpriority(2), capabilities(7)).
bool may_return_to(int nice) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (::syscall(SYS_capget, &header, data) == 0 && (data[0].effective & (1U << CAP_SYS_NICE)) != 0)
    return true;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NICE, &limit) != 0) return false;
  return limit.rlim_cur == RLIM_INFINITY || 20 - static_cast<int>(limit.rlim_cur) <= nice;
}

std::vector<pid_t> threads() {
  std::vector<pid_t> out;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task", error)) {
    const std::string name = entry.path().filename().string();
    pid_t id = 0;
    if (std::from_chars(name.data(), name.data() + name.size(), id).ec == std::errc()) out.push_back(id);
  }
  std::ranges::sort(out);
  return out;
}

// On Linux PRIO_PROCESS with a thread id means that thread, and 0 the calling one.
int nice_of(pid_t thread) { return ::getpriority(PRIO_PROCESS, static_cast<id_t>(thread)); }

// Best effort: a thread may have ended.
bool set_priority(pid_t thread, int policy, int nice) {
  const sched_param none{};
  return ::sched_setscheduler(thread, policy, &none) == 0 &&
         ::setpriority(PRIO_PROCESS, static_cast<id_t>(thread), nice) == 0;
}

// All that live with `when_idle`, and the threads of all that live: whoever ends first leaves those alone.
struct Waiting {
  std::mutex mutex;
  std::vector<LoaderPriority*> loads;
  std::vector<pid_t> loaders;
};

Waiting& waiting() {
  static Waiting all;
  return all;
}

}  // namespace

LoaderPriority::LoaderPriority(int steps, bool when_idle)
    : nice_(std::min(nice_of(0) + steps, kLowest)),
      thread_(::gettid()),
      began_(monotonic_now()),
      former_(nice_of(0)) {
  // Another policy was somebody's choice: it is left alone.
  if (nice_ <= former_ || ::sched_getscheduler(0) != SCHED_OTHER || !may_return_to(former_)) return;
  threads_before_ = threads();
  lowered_ = set_priority(0, when_idle ? SCHED_IDLE : SCHED_OTHER, nice_);
  if (!lowered_) return;
  const std::lock_guard lock(waiting().mutex);
  waiting().loaders.push_back(thread_);
  if (!when_idle) return;
  idle_ = true;
  waiting().loads.push_back(this);
}

LoaderPriority::~LoaderPriority() {
  if (!lowered_) return;
  const std::lock_guard lock(waiting().mutex);  // or hurry() would lower what is restored here
  std::erase(waiting().loads, this);
  std::erase(waiting().loaders, thread_);
  for_own_threads(SCHED_OTHER, former_);
}

void LoaderPriority::hurry(Nanos patience) {
  const std::lock_guard lock(waiting().mutex);
  for (LoaderPriority* const load : waiting().loads) {
    if (!load->idle_ || monotonic_now() - load->began_ < patience) continue;
    load->idle_ = false;
    load->for_own_threads(SCHED_OTHER, load->nice_);
  }
}

// The calling one of the constructor, and those that have its priority and were not there before, without other loaders. The
// list's mutex is held.
void LoaderPriority::for_own_threads(int policy, int nice) const {
  set_priority(thread_, policy, nice);
  for (const pid_t thread : threads()) {
    if (std::ranges::binary_search(threads_before_, thread)) continue;
    if (std::ranges::find(waiting().loaders, thread) != waiting().loaders.end()) continue;
    if (nice_of(thread) == nice_) set_priority(thread, policy, nice);
  }
}

}  // namespace fastserve
