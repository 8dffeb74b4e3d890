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
#include <string_view>
#include <vector>

#include "base/cache_line.h"
#include "base/clock.h"
#include "base/histogram.h"

namespace fastserve {

// How accepted (or, queue full and too late, nearly accepted) requests end without an answer of the model.
enum class Outcome : std::uint8_t {
  kQueueFull,     // refused, because too many waited
  kQueueTimeout,  // the `timeout` parameter passed in the queue
  kCancelled,     // by its owner, in the queue
  kDeadline,      // passed in the queue or while it ran
  kUnloading,     // the version was unloaded under it
  kBackend,       // failed by the backend, or for want of memory
  kTooLate,       // refused, because it was not expected to be answered in time
  kClientMemory,  // memory that the client gave for it is too small for the answer or went away
};
inline constexpr std::size_t kOutcomes = 8;
std::string_view outcome_name(Outcome outcome);  // "queue_full", ...: the label in metrics

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
  std::uint64_t parts = 0;  // of larger requests, that succeeded; those are counted when they are whole again
};

// Successful requests. gather, execute and scatter: the batch's time, for each of its requests.
struct alignas(kCacheLine) StatisticsShard {
  explicit StatisticsShard(std::int64_t sizes_in) : sizes(sizes_in) {}
  ~StatisticsShard();
  StatisticsShard(const StatisticsShard&) = delete;
  StatisticsShard& operator=(const StatisticsShard&) = delete;
  // Any thread. nullptr: no such batch has been counted.
  const SizeCounter* of_rows(std::int64_t rows) const;
  // Writers. nullptr: there is no memory to count it in.
  SizeCounter* make_of_rows(std::int64_t rows);

  std::atomic<bool> claimed{false};  // acquire when it is claimed, release when it is given back
  DurationHistogram queue, gather, execute, total;
  Counter scatter_ns{0};
  Counter rows_served{0};
  std::atomic<Nanos> last_run{0};  // CLOCK_MONOTONIC; 0 = never
  const std::int64_t sizes;

 private:
  // Sizes in pieces that are made when they are first counted: a model for 4,096 rows that nobody uses holds none of the
  // 128 KiB. Piece i has the sizes of as many bits as i: 1, 2..3, 4..7, ...
  static constexpr std::size_t kPieces = 13;
  struct Place {
    std::size_t piece, at;
  };
  Place place_of(std::int64_t rows) const;
  std::array<std::atomic<SizeCounter*>, kPieces> pieces_{};  // release when it is made, acquire by readers
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

  // Requests whose deadline had passed when their batch was handed to the device: never.
  Counter expired_executed{0};
  // Tensor bytes that were copied on the host, into batches and out of them: 0 for a request that is a batch by itself and says
  // where its answer is to be.
  Counter copied_bytes{0};

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
