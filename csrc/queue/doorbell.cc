#include "queue/doorbell.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>

namespace fastserve {
namespace {

// The kernel's view of the atomic: a plain 32-bit word (futex(2)).
std::uint32_t* word(std::atomic<std::uint32_t>& epoch) {
  static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));
  return reinterpret_cast<std::uint32_t*>(&epoch);
}

void wake(std::atomic<std::uint32_t>& epoch, int count) {
  ::syscall(SYS_futex, word(epoch), FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

}  // namespace

void Doorbell::ring() {
  epoch_.fetch_add(1, std::memory_order_seq_cst);  // before the look at sleepers_, see the header
  if (sleepers_.load(std::memory_order_seq_cst) != 0) wake(epoch_, 1);
}

void Doorbell::ring_all() {
  epoch_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) != 0) wake(epoch_, INT_MAX);
}

void Doorbell::wait(std::uint32_t ticket, Nanos until) {
  timespec at{};
  if (until > 0) {
    at.tv_sec = static_cast<time_t>(until / kSecond);
    at.tv_nsec = static_cast<long>(until % kSecond);
  }
  sleepers_.fetch_add(1, std::memory_order_seq_cst);  // before the kernel compares the epoch, see the header
  // FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time; every way out of it is a reason to look again.
  ::syscall(SYS_futex, word(epoch_), FUTEX_WAIT_BITSET_PRIVATE, ticket, until == kNever ? nullptr : &at,
            nullptr, FUTEX_BITSET_MATCH_ANY);
  sleepers_.fetch_sub(1, std::memory_order_seq_cst);
}

}  // namespace fastserve
