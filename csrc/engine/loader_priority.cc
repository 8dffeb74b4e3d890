#include "engine/loader_priority.h"

#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <string>
#include <system_error>

namespace fastserve {
namespace {

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
bool set_nice(pid_t thread, int nice) {
  return ::setpriority(PRIO_PROCESS, static_cast<id_t>(thread), nice) == 0;
}

}  // namespace

LoaderPriority::LoaderPriority(int nice) : nice_(nice), former_(nice_of(0)) {
  if (nice <= former_ || !may_return_to(former_)) return;
  threads_before_ = threads();
  lowered_ = set_nice(0, nice);
}

LoaderPriority::~LoaderPriority() {
  if (!lowered_) return;
  set_nice(0, former_);
  for (const pid_t thread : threads()) {
    if (std::ranges::binary_search(threads_before_, thread)) continue;
    if (nice_of(thread) == nice_) set_nice(thread, former_);
  }
}

}  // namespace fastserve
