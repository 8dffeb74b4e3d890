// When to run and how much: a pure function, so that a simulator and the instances use the same code.
// It reads no clock and touches no queue.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace fastserve {

// The model's hard limits (config.pbtxt: max_batch_size, dynamic_batching).
struct BatchLimits {
  std::int64_t max_rows = 1;            // per batch; 1 when the model does not batch
  Nanos max_queue_delay_ns = 0;         // 0: never wait for company
  std::int64_t max_queue_requests = 0;  // waiting requests beyond which submit refuses; > 0
  std::vector<std::int64_t> preferred_rows;  // ascending; reaching one ends the wait
  std::vector<std::int64_t> prepared_rows;   // ascending; sizes that the device is warm for. Empty: all alike
  bool pads = false;                         // a batch runs as the next prepared size, whatever its rows
  Nanos target_p99_ns = 0;                   // the one knob; 0: none
};

// The front of the pending set in the order in which it would be served, long enough to fill one batch.
struct QueueView {
  std::span<const std::int64_t> rows;  // rows of each waiting request
  Nanos oldest_enqueued = 0;  // arrival of the longest-waiting request; meaningless when rows is empty
  Nanos earliest_deadline = kNever;
  bool cut = false;  // the request behind the view cannot join these (another shape): waiting gains nothing
  double arrivals_per_ns = 0;  // estimate of the rate of rows; 0: unknown
  int idle_instances = 1;      // that could take the next arrival, the one that asks included
  // Now and then true: take one prepared size more than would be chosen, so that its cost does not go stale.
  bool explore = false;
};

// Learned cost of a batch by rows (batch/latency_table.h).
struct CostModel {
  // Expected run time of a batch of `rows`, 0 when nothing is known yet.
  virtual Nanos expected_ns(std::int64_t rows) const = 0;
  // A high quantile of it (about the 95th percentile): what a promise should count with. 0 when nothing is known yet.
  virtual Nanos high_ns(std::int64_t rows) const { return expected_ns(rows); }

 protected:
  ~CostModel() = default;
};

// Why a decision is what it is: counted by reason, and told in words by `fastserve explain`.
enum class Reason : std::uint8_t {
  kNothingWaits,  // no decision
  kFull,          // no more fits
  kPreferred,     // a preferred size was reached
  kDelayPassed,   // max_queue_delay is over
  kDeadline,      // waiting longer would miss a deadline or the target
  kNoGain,        // company would not pay: run what is there
  kCheapest,      // a part of what waits, because a larger batch costs more for each row
  kExplore,       // one size more than the cheapest, so that its cost does not go stale
  kCompany,       // waits: an arrival is expected soon enough to pay
};
inline constexpr std::size_t kReasons = 9;
std::string_view reason_name(Reason reason);  // "full", "no gain", ...

struct Decision {
  std::size_t requests = 0;  // > 0: run the first so many now
  std::int64_t rows = 0;
  Nanos wait_until = kNever;  // requests == 0: look again then, or when something arrives
  Reason reason = Reason::kNothingWaits;
};

// Everything that waits and fits, unless that costs more per row than less would: of the sizes that could run, the smallest
// whose rows per second are within 3 % of the best (a partial batch must not pay for a full one, and a large batch that gains
// nothing only makes its first request wait). A request is never split.
Decision decide(const BatchLimits& limits, const QueueView& queue, const CostModel& cost, Nanos now);

}  // namespace fastserve
