// What the instances of one version share: the way in (intake, admission), the ordered pending set behind the pull token,
// the bell that idle instances sleep on, the instances' board and the statistics.
//
//   submitter:  admit -> push -> (end of the loop pass) ring     no lock, no allocation
//   puller:     pull: takes the token, moves the intake into the pending set, drops what expired or was cancelled, asks the
//               policy, fills a batch, writes down what was decided
//   timer:      drop_expired, under the same token
//
// Levels: a smaller priority number goes first. Of every kOvertakingBatches + 1 batches that leave the longest-waiting
// request behind, the last is led by that request, whatever its level. Limits count only what would be served before the
// newcomer (its own and higher levels), so a queue full of low priority still admits high priority; in all, levels in use x
// limit requests can wait.
//
// Thread: as said at each function. Lives as long as its ModelVersion object.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "base/cache_line.h"
#include "batch/admission.h"
#include "batch/arrival_rate.h"
#include "batch/batch.h"
#include "batch/pending_set.h"
#include "batch/policy.h"
#include "batch/queue_rules.h"
#include "batch/scheduling.h"
#include "batch/served_version.h"
#include "queue/doorbell.h"
#include "queue/intake.h"
#include "sched/decision_log.h"
#include "sched/expiry_timer.h"
#include "sched/instance_board.h"
#include "sched/statistics.h"

namespace fastserve {

class ModelQueue {
 public:
  // `version` outlives the queue and has its signature; leave_timer() before the queue is destroyed; limits.max_rows is taken from that.
  ModelQueue(ServedVersion& version, BatchLimits limits, ExpiryTimer& timer, QueueLimits queue = {});
  ModelQueue(const ModelQueue&) = delete;
  ModelQueue& operator=(const ModelQueue&) = delete;

  // Batches in a row that may leave the longest-waiting request behind.
  static constexpr int kOvertakingBatches = 15;

  // --- submitters, any thread
  // Whether the request may wait: counted from here on, or refused (and counted as that) with UNAVAILABLE: too many wait
  // before it, or it is not expected to be answered in time. Wants rows, priority, deadline and times.enqueued.
  Status admit(const Request& request);
  Nanos expiry_of(const Request& request, Nanos now) const { return rules_.expiry_of(request, now); }
  // After admit of a request that is pushed in parts: each of them waits. So one request may exceed the limit by its parts.
  void admit_parts(const Request& whole, std::span<const Request> parts) {
    std::uint64_t more = 0 - packed(whole.rows);
    for (const Request& part : parts) more += packed(part.rows);
    waiting_[rules_.level_of(whole.priority)].fetch_add(more, std::memory_order_relaxed);
  }
  bool push(Request& request);  // after admit; the request is gone. True: whoever pushed it owes a ring
  void announce_expiry(Nanos expires);  // after push, of a request that can expire
  void notice_cancel();                 // a waiting request may have been cancelled: look soon
  // By whoever owes a ring. The first one starts the instances' threads: a model without requests has none.
  void ring() {
    if (!instances.running.load(std::memory_order_acquire) && instances.start) instances.start();
    bell.ring();
  }

  // --- pullers, any thread that holds an instance
  struct Pull {
    std::size_t taken = 0;      // requests in the batch
    std::size_t left = 0;       // requests that still wait
    Nanos wait_until = kNever;  // taken == 0: look again then, or when the bell rings
    std::uint64_t order =
        0;  // taken != 0: batches are numbered as they leave the queue, from 0 without a gap
  };
  // `cost`: of the instance that pulls (InstanceLine::cost), which is claimed. `starts_at`: when the device would start the
  // batch, if it runs another one before; 0: at once.
  Pull pull(Batch& batch, const CostModel& cost, Nanos now, Nanos starts_at = 0);

  // Answers requests that were pulled and turned out expired or cancelled before they ran; linked by next_in_intake.
  void answer_dropped(Request* list, Nanos now) { answer(list, now, nullptr, Outcome::kUnloading); }

  // --- timer: answers what expired or was cancelled; returns the next expiry
  Nanos drop_expired(Nanos now);
  Nanos next_expiry() const { return next_expiry_.load(std::memory_order_seq_cst); }

  // --- drain, loader thread
  // Answers everything that waits with `status`.
  void refuse_waiting(const Status& status, Outcome outcome = Outcome::kUnloading);
  // Everything that waits, oldest first within a level, linked by next_in_intake: it is the caller's, who owes the answers.
  Request* take_waiting();
  void leave_timer();  // nothing waits or will: a shell may outlive the engine's timer

  // --- reading, any thread
  // What waits in a level, by its place in the order (priority - 1).
  struct Load {
    std::int64_t requests = 0;
    std::int64_t rows = 0;
  };
  Load waiting_of(std::size_t level) const {
    return unpacked(waiting_[level].load(std::memory_order_relaxed));
  }
  std::int64_t waiting() const;  // requests of all levels
  double arrivals_per_ns() const { return arrivals_.rows_per_ns_relaxed(); }
  DrainRate drain() const { return drain_.load(); }
  const DecisionLog& log() const { return log_; }
  const QueueRules& rules() const { return rules_; }
  const QueueLimits& queue_limits() const { return queue_; }
  const BatchLimits& limits() const { return limits_; }
  // Loader thread, before the first pull: what the warm-up found (BatchLimits::prepared_rows, pads).
  void prepare(std::vector<std::int64_t> prepared_rows, bool pads);
  ServedVersion& version() const { return version_; }

  Doorbell bell;  // idle instances sleep here
  Statistics statistics;
  InstanceBoard instances;

 private:
  // Requests and rows of a level in one word, so that one addition counts both. A request's rows count up to 2^16.
  static constexpr int kRowBits = 40;
  static std::uint64_t packed(std::int64_t rows) {
    return (std::uint64_t{1} << kRowBits) + static_cast<std::uint64_t>(rows < 65536 ? rows : 65536);
  }
  static Load unpacked(std::uint64_t word) {
    return {static_cast<std::int64_t>(word >> kRowBits),
            static_cast<std::int64_t>(word & ((std::uint64_t{1} << kRowBits) - 1))};
  }
  // Takes requests off their levels' counts: one subtraction for each run of requests of one level.
  class Leaving;

  Load waiting_before(std::size_t level) const;
  bool too_many(const Load& before) const;
  Status refuse(std::size_t level, const Request& request, Outcome outcome, std::string reason);
  void take_intake();
  void view_front(QueueView& view, Request*& cancelled);
  Decision look(const CostModel& cost, Nanos now, Nanos starts_at, Request*& cancelled);
  Nanos fill(Batch& batch, const Decision& decision, Nanos now);
  void note(const Decision& decision, const CostModel& cost, Nanos now, Nanos waited);
  std::int64_t run_rows(std::int64_t rows) const;
  void leave_counts(const Request* list);
  void answer(Request* list, Nanos now, const Status* status, Outcome outcome = Outcome::kUnloading);

  ServedVersion& version_;
  BatchLimits limits_;
  const QueueLimits queue_;
  const QueueRules rules_;
  const LatencyTarget target_;
  const bool uniform_;
  ExpiryTimer& timer_;

  std::atomic<std::uint32_t> levels_used_{0};  // relaxed; bit i: something waited in level i some time
  ServedShares shares_;                        // written under the pull token
  PublishedDrainRate drain_;
  Intake<Request> intake_;
  // Raised by submitters, lowered by the token's holder; relaxed: each an estimate for the others, exact for itself.
  alignas(kCacheLine) std::array<std::atomic<std::uint64_t>, kPriorityLevels> waiting_{};
  alignas(kCacheLine) std::atomic<Nanos> next_expiry_{
      kNever};  // seq_cst: lowered after push; raised before the intake is taken
  std::atomic<bool> cancel_noticed_{false};
  std::mutex pull_token_;  // guards what follows
  PendingSet pending_;
  ArrivalRate arrivals_;
  DecisionLog log_;
  std::vector<Request*> front_;  // what look() showed the policy, in that order
  std::vector<std::int64_t> front_rows_;
  int overtaken_ = 0;  // batches in a row that left the longest-waiting request behind
  std::uint32_t looks_ = 0;
  std::uint64_t next_order_ = 0;
  Nanos answered_at_ = 0;
};

// The status of a request that waited in vain: CANCELLED, DEADLINE_EXCEEDED (`deadline`) or UNAVAILABLE
// (`queue_timeout_ns`).
Status drop_status(const Request& request, Nanos now);

}  // namespace fastserve
