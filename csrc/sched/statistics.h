// What one version counts. Writers never wait for one another or for a reader, readers stop nobody.
//
// Batches that end are counted in shards, one for each instance: whoever finishes a batch claims the instance's shard with one
// exchange and then adds without locked instructions; when another finisher has it (two batches of one instance ended at
// the same moment on two threads) he adds to the version's common shard with locked ones. Everything rare is one atomic.
// Thread: as said at each class; reading from any. Lives in the ModelQueue, longer than every instance.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/cache_line.h"
#include "base/clock.h"
#include "base/histogram.h"

namespace fastserve {

// How accepted (or, queue full, nearly accepted) requests end without an answer of the model.
enum class Outcome : std::uint8_t {
  kQueueFull,     // refused, because too many waited
  kQueueTimeout,  // the `timeout` parameter passed in the queue
  kCancelled,     // by its owner, in the queue
  kDeadline,      // passed in the queue or while it ran
  kUnloading,     // the version was unloaded under it
  kBackend,       // failed by the backend, or for want of memory
};
inline constexpr std::size_t kOutcomes = 6;

struct OutcomeCounter {
  Counter count{0};
  Counter ns{0};  // how long they had been in
  void add(Nanos took_ns) {
    fastserve::count<Writers::kAny>(count);
    fastserve::count<Writers::kAny>(ns, static_cast<std::uint64_t>(took_ns > 0 ? took_ns : 0));
  }
};

// Batches of one size.
struct SizeCounter {
  Counter count{0}, gather_ns{0}, execute_ns{0}, scatter_ns{0};
};

// The successful part of one batch.
struct BatchTimes {
  std::int64_t rows = 0;     // of the whole batch
  std::uint64_t served = 0;  // requests that succeeded
  std::int64_t served_rows = 0;
  Nanos gather_ns = 0, execute_ns = 0, scatter_ns = 0;
  Nanos now = 0;
};

// Successful requests. gather, execute and scatter: the batch's time, for each of its requests.
struct alignas(kCacheLine) StatisticsShard {
  explicit StatisticsShard(std::int64_t sizes_in);
  SizeCounter& of_rows(std::int64_t rows) const {
    return by_rows[static_cast<std::size_t>((rows < sizes ? rows : sizes) - 1)];
  }

  std::atomic<bool> claimed{false};  // acquire when it is claimed, release when it is given back
  DurationHistogram queue, gather, execute, total;
  Counter scatter_ns{0};
  Counter rows_served{0};
  std::atomic<Nanos> last_run{0};  // CLOCK_MONOTONIC; 0 = never
  const std::int64_t sizes;
  const std::unique_ptr<SizeCounter[]> by_rows;
};

class Statistics {
 public:
  // Batches above kMaxSizes rows are counted as if they had so many.
  static constexpr std::int64_t kMaxSizes = 4096;

  explicit Statistics(std::int64_t max_rows);

  // Loader thread, before anything is counted or read.
  StatisticsShard& add_shard();
  StatisticsShard& common() { return *shards_.front(); }

  void add(Outcome outcome, Nanos took_ns) { outcomes_[static_cast<std::size_t>(outcome)].add(took_ns); }
  const OutcomeCounter& of(Outcome outcome) const { return outcomes_[static_cast<std::size_t>(outcome)]; }

  std::int64_t sizes() const { return sizes_; }
  const std::vector<std::unique_ptr<StatisticsShard>>& shards() const { return shards_; }

 private:
  const std::int64_t sizes_;
  std::vector<std::unique_ptr<StatisticsShard>> shards_;  // the common one first
  alignas(kCacheLine) std::array<OutcomeCounter, kOutcomes> outcomes_;
};

// Counts one batch: every successful request of it, then the batch. Holds the shard meanwhile.
// Thread: one, the batch's finisher.
class BatchCount {
 public:
  BatchCount(StatisticsShard& own, StatisticsShard& common)
      : claimed_(!own.claimed.exchange(true, std::memory_order_acquire)), shard_(claimed_ ? own : common) {}
  ~BatchCount() {
    if (claimed_) shard_.claimed.store(false, std::memory_order_release);
  }
  BatchCount(const BatchCount&) = delete;
  BatchCount& operator=(const BatchCount&) = delete;

  void add_request(Nanos queue_ns, Nanos total_ns);
  void add_batch(const BatchTimes& batch);  // nothing when no request of it succeeded

 private:
  template <Writers kWriters>
  void add(const BatchTimes& batch);

  const bool claimed_;
  StatisticsShard& shard_;
};

}  // namespace fastserve
