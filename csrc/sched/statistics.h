// What one version counts. Writers are the submitters (refusals), whoever finishes batches and whoever drops waiting
// requests; readers stop nobody. All relaxed: each number is consistent with itself, not with the others.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/cache_line.h"
#include "base/clock.h"

namespace fastserve {

// Upper bounds of the histograms' buckets in seconds; one more bucket above the last.
inline constexpr std::array<double, 20> kStageBoundsSeconds{
    0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
    0.01,     0.025,   0.05,     0.1,     0.25,   0.5,     1,      2.5,   5,      10};
inline constexpr std::size_t kStageBuckets = kStageBoundsSeconds.size() + 1;

class StageCounter {
 public:
  static std::size_t bucket_of(Nanos ns);  // the first whose bound is >= ns

  void count(Nanos ns, std::uint64_t requests = 1) {
    counts_[bucket_of(ns)].fetch_add(requests, std::memory_order_relaxed);
  }
  void add_ns(Nanos ns) { sum_ns_.fetch_add(static_cast<std::uint64_t>(ns), std::memory_order_relaxed); }

  std::uint64_t in_bucket(std::size_t i) const { return counts_[i].load(std::memory_order_relaxed); }
  std::uint64_t count() const;
  std::uint64_t sum_ns() const { return sum_ns_.load(std::memory_order_relaxed); }

 private:
  std::array<std::atomic<std::uint64_t>, kStageBuckets> counts_{};
  std::atomic<std::uint64_t> sum_ns_{0};
};

// Requests that ended in another way than success, and how long they had been in.
struct OutcomeCounter {
  std::atomic<std::uint64_t> count{0};
  std::atomic<std::uint64_t> ns{0};
  void add(Nanos took_ns) {
    count.fetch_add(1, std::memory_order_relaxed);
    ns.fetch_add(static_cast<std::uint64_t>(took_ns), std::memory_order_relaxed);
  }
};

// Batches of one size.
struct SizeCounter {
  std::atomic<std::uint64_t> count{0}, gather_ns{0}, execute_ns{0}, scatter_ns{0};
};

// The successful part of one batch.
struct BatchTimes {
  std::int64_t rows = 0;     // of the whole batch
  std::uint64_t served = 0;  // requests that succeeded
  std::int64_t served_rows = 0;
  Nanos gather_ns = 0, execute_ns = 0, scatter_ns = 0;
  Nanos now = 0;
};

class Statistics {
 public:
  // Batches above kMaxSizes rows are counted as if they had so many.
  static constexpr std::int64_t kMaxSizes = 4096;

  explicit Statistics(std::int64_t max_rows);

  // Counts everything of a batch but the two stages that differ by request, which add_request takes.
  void add_request(Nanos queue_ns, Nanos total_ns);
  void add_batch(const BatchTimes& batch);

  std::int64_t sizes() const { return sizes_; }
  const SizeCounter& of_rows(std::int64_t rows) const { return by_rows_[index(rows)]; }

  // Successful requests only. gather, execute and scatter: the batch's time, for each of its requests.
  StageCounter queue, gather, execute, total;
  std::atomic<std::uint64_t> scatter_ns{0};
  std::atomic<std::uint64_t> rows_served{0};
  std::atomic<Nanos> last_run{0};  // CLOCK_MONOTONIC; 0 = never
  alignas(kCacheLine) OutcomeCounter failed, cancelled, rejected;

 private:
  std::size_t index(std::int64_t rows) const {
    return static_cast<std::size_t>((rows < sizes_ ? rows : sizes_) - 1);
  }

  const std::int64_t sizes_;
  const std::unique_ptr<SizeCounter[]> by_rows_;
};

}  // namespace fastserve
