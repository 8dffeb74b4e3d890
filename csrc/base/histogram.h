// Durations counted into fixed buckets, for many writers or for one, read by any thread meanwhile.
//
// Bucket i counts what took at most 1 us * 2^i (i = 0..24: 1 us .. 16.8 s), the last one what took longer. The bucket is a
// division by a constant and a count of bits: no logarithm, no search.
// Thread: count<Writers::kOne> from one thread at a time (whoever hands the right over synchronises), count<Writers::kAny> from
// any; one object is written in one way only. Reading from any: relaxed, each number consistent with itself.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/clock.h"

namespace fastserve {

using Counter = std::atomic<std::uint64_t>;

enum class Writers : std::uint8_t { kOne, kAny };

// One writer needs no locked instruction, which would cost 5 ns and more.
template <Writers kWriters>
void count(Counter& counter, std::uint64_t n = 1) {
  if constexpr (kWriters == Writers::kOne) {
    counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  } else {
    counter.fetch_add(n, std::memory_order_relaxed);
  }
}

inline std::uint64_t read(const Counter& counter) { return counter.load(std::memory_order_relaxed); }

class DurationHistogram {
 public:
  static constexpr std::size_t kBounds = 25;
  static constexpr std::size_t kBuckets = kBounds + 1;
  static constexpr Nanos bound_ns(std::size_t i) { return kMicrosecond << i; }

  // The first whose bound is >= ns. Less than 1 ns counts as 1.
  static constexpr std::size_t bucket_of(Nanos ns) {
    const auto whole_us = static_cast<std::uint64_t>(ns > 1 ? ns - 1 : 0) / 1000U;
    const auto bucket = static_cast<std::size_t>(std::bit_width(whole_us));
    return bucket < kBuckets ? bucket : kBuckets - 1;
  }

  // n durations of ns each.
  template <Writers kWriters>
  void count(Nanos ns, std::uint64_t n = 1) {
    add_to_bucket<kWriters>(bucket_of(ns), n);
    add_to_sum<kWriters>(ns > 0 ? static_cast<std::uint64_t>(ns) * n : 0);
  }
  // The two halves of it, for writers that sum up first.
  template <Writers kWriters>
  void add_to_bucket(std::size_t bucket, std::uint64_t n) {
    fastserve::count<kWriters>(counts_[bucket], n);
  }
  template <Writers kWriters>
  void add_to_sum(std::uint64_t ns) {
    fastserve::count<kWriters>(sum_ns_, ns);
  }

  std::uint64_t in_bucket(std::size_t i) const { return read(counts_[i]); }
  std::uint64_t sum_ns() const { return read(sum_ns_); }

 private:
  std::array<Counter, kBuckets> counts_{};
  Counter sum_ns_{0};
};

}  // namespace fastserve
