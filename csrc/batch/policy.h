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
  Nanos max_queue_age_ns = 0;  // more may wait while they are expected to be served within this; 0: none
  std::vector<std::int64_t> preferred_rows;  // ascending; reaching one ends the wait
  std::vector<std::int64_t> prepared_rows;   // ascending; sizes that the device is warm for. Empty: all alike
  bool pads = false;                         // a batch runs as the next prepared size, whatever its rows
  Nanos target_p99_ns = 0;                   // the one knob; 0: none
  // Company is waited for only where a run takes at least so long: a thread that sleeps is back about 50 us late.
  Nanos shortest_worth_waiting_ns = 200 * kMicrosecond;
};

// The front of the pending set in the order in which it would be served, long enough to fill one batch.
struct QueueView {
  std::span<const std::int64_t> rows;  // rows of each waiting request
  Nanos oldest_enqueued = 0;  // arrival of the longest-waiting request; meaningless when rows is empty
  Nanos earliest_deadline = kNever;
  bool cut = false;  // the request behind the view cannot join these (another shape): waiting gains nothing
  // Of rows; ArrivalRate::describe fills all of these. 0: unknown.
  double arrivals_per_ns = 0;       // long-run
  double soon_per_ns = 0;           // forecast: while waiting for the next one until soon_until
  Nanos soon_until = 0;             // absolute
  double then_per_ns = 0;           // forecast: the ones after that, while returning_rows > 0
  double return_per_ns = 0;         // forecast: once the batch that runs now has ended
  double late_per_ns = 0;           // long-run, without those that follow an answer closely
  std::int64_t returning_rows = 0;  // of the last batch that ended, less what arrived since
  // When a batch given to this instance would start: > now while another one runs before it (depth > 1; then always, also
  // when that one is overdue). 0: at once.
  Nanos starts_at = 0;
  // When the first of the other instances is expected to be free, if all are busy (overdue: now). 0: unknown, or none.
  Nanos next_free_at = 0;
  int instances = 1;  // of the model that share the queue
  // That could take the next arrival at once, because nothing runs on them; and the one that asks.
  int idle_instances = 1;
  // Now and then +1 or -1: take one prepared size more or less than would be chosen, so that its cost does not go stale.
  int explore = 0;
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
  kExplore,       // one size more or less than the cheapest, so that its cost does not go stale
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

// The size that a long queue is served in: the smallest within 3 % of the best rows per ns; max_rows when nothing is known.
std::int64_t best_rows(const BatchLimits& limits, const CostModel& cost);

// How much: everything that waits and fits, unless that costs more per row than less would - of the sizes that could run,
// the smallest whose rows per ns are within 3 % of the best (a partial batch must not pay for a full one, and a large batch
// that gains nothing only makes its first request wait), but all of it when what would be left over would end later; a part
// for each of several instances when both parts end sooner. A request is never split.
//
// When: with max_queue_delay or preferred sizes and no target, Triton's rules. Otherwise at once, unless waiting for those
// that are forecast to come saves device time (batch/company.h), and never beyond the delay, a deadline or the target.
//
// A puller that is told to wait watches the clock until wait_until; when that is because another instance would start it
// sooner (idle_instances > 1, starts_at > now), that instance must have been rung.
Decision decide(const BatchLimits& limits, const QueueView& queue, const CostModel& cost, Nanos now);

}  // namespace fastserve
