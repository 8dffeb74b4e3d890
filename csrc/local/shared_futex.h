// futex(2) on a word of memory that processes share (Doorbell's is private to one). A wake never blocks.
// Thread: any.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/clock.h"

namespace fastserve {

// Sleeps while the word is `expected`, at most until `until` (CLOCK_MONOTONIC; kNever = no limit). May return spuriously.
// False: a signal came (the caller decides whether it goes on).
bool shared_futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected, Nanos until);
void shared_futex_wake(std::atomic<std::uint32_t>& word);  // all who sleep

}  // namespace fastserve
