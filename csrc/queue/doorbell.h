// Park and wake on a futex, without lost wake-ups and without a system call while nobody sleeps.
//
//   waiter:  t = bell.ticket(); if (there is work) ...; else bell.wait(t, until);
//   ringer:  make the work visible (seq_cst); bell.ring();
//
// ring() increments the epoch (seq_cst read-modify-write) and then reads the sleeper count; wait() increments the sleeper
// count (seq_cst) and then sleeps only while the epoch still equals the ticket. Either the ringer sees the sleeper or the
// sleeper sees the new epoch. No fences: ThreadSanitizer does not model them.
// Thread: any thread may ring and wait.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/cache_line.h"
#include "base/clock.h"

namespace fastserve {

class Doorbell {
 public:
  std::uint32_t ticket() const { return epoch_.load(std::memory_order_seq_cst); }
  void ring();      // wakes one sleeper
  void ring_all();  // wakes every sleeper
  // Returns when rung after `ticket` was taken, at `until` (CLOCK_MONOTONIC; kNever = no limit), or spuriously.
  void wait(std::uint32_t ticket, Nanos until);
  std::uint32_t sleepers() const { return sleepers_.load(std::memory_order_seq_cst); }

 private:
  alignas(kCacheLine) std::atomic<std::uint32_t> epoch_{0};
  std::atomic<std::uint32_t> sleepers_{0};
};

}  // namespace fastserve
