#include "local/shared_futex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <ctime>

namespace fastserve {

bool shared_futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected, Nanos until) {
  timespec at{};
  if (until > 0) {
    at.tv_sec = static_cast<time_t>(until / kSecond);
    at.tv_nsec = static_cast<long>(until % kSecond);
  }
  return ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAIT_BITSET, expected,
                   until == kNever ? nullptr : &at, nullptr, FUTEX_BITSET_MATCH_ANY) == 0 ||
         errno != EINTR;
}

void shared_futex_wake(std::atomic<std::uint32_t>& word) {
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace fastserve
