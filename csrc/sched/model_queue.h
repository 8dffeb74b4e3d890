// What the instances of one version share: the way in (intake, admission), the ordered pending set behind the pull token,
// the bell that idle instances sleep on, the learned costs and the statistics.
//
//   submitter:  admit -> push -> (end of the loop pass) ring     no lock, no allocation
//   puller:     pull: takes the token, moves the intake into the pending set, drops what expired or was cancelled, asks the
//               policy, fills a batch
//   timer:      drop_expired, under the same token
//
// Thread: as said at each function. Lives as long as its ModelVersion object.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "base/cache_line.h"
#include "batch/batch.h"
#include "batch/latency_table.h"
#include "batch/pending_set.h"
#include "batch/policy.h"
#include "batch/scheduling.h"
#include "batch/served_version.h"
#include "queue/doorbell.h"
#include "queue/intake.h"
#include "sched/expiry_timer.h"
#include "sched/statistics.h"

namespace fastserve {

class ModelQueue {
 public:
  // `version` outlives the queue and has its signature; leave_timer() before the queue is destroyed; limits.max_rows is taken from that.
  ModelQueue(ServedVersion& version, BatchLimits limits, ExpiryTimer& timer, QueueLimits queue = {});
  ModelQueue(const ModelQueue&) = delete;
  ModelQueue& operator=(const ModelQueue&) = delete;

  // --- submitters, any thread
  bool admit();                 // false: full (counted as rejected)
  bool push(Request& request);  // after admit; the request is gone. True: whoever pushed it owes a ring
  void announce_expiry(Nanos expires);  // after push, of a request that can expire
  void notice_cancel();                 // a waiting request may have been cancelled: look soon
  void ring() { bell.ring(); }

  // --- pullers, any thread that holds an instance
  struct Pull {
    std::size_t taken = 0;      // requests in the batch
    std::size_t left = 0;       // requests that still wait
    Nanos wait_until = kNever;  // taken == 0: look again then, or when the bell rings
  };
  Pull pull(Batch& batch, Nanos now);

  // --- timer: answers what expired or was cancelled; returns the next expiry
  Nanos drop_expired(Nanos now);
  Nanos next_expiry() const { return next_expiry_.load(std::memory_order_seq_cst); }

  // --- drain, loader thread
  void refuse_waiting(const Status& status);  // answers everything that waits with `status`
  void leave_timer();                         // nothing waits or will: a shell may outlive the engine's timer

  std::int64_t waiting() const;
  const BatchLimits& limits() const { return limits_; }
  // Loader thread, before the first pull: what the warm-up found (BatchLimits::prepared_rows, pads).
  void prepare(std::vector<std::int64_t> prepared_rows, bool pads);
  ServedVersion& version() const { return version_; }

  Doorbell bell;  // idle instances sleep here
  Statistics statistics;
  LatencyTable cost;

 private:
  void take_intake();
  Decision look(Nanos now, Request*& cancelled);
  void answer(Request* list, Nanos now, const Status* status);

  ServedVersion& version_;
  BatchLimits limits_;
  const QueueLimits queue_;
  const bool uniform_;
  ExpiryTimer& timer_;

  Intake<Request> intake_;
  alignas(kCacheLine) std::atomic<std::int64_t> submitted_{0};  // relaxed: only their difference matters
  alignas(kCacheLine) std::atomic<std::int64_t> taken_{0};
  std::atomic<Nanos> next_expiry_{kNever};  // seq_cst: lowered after push; raised before the intake is taken
  std::atomic<bool> cancel_noticed_{false};
  std::mutex pull_token_;  // guards what follows
  PendingSet pending_;
  std::vector<std::int64_t> view_rows_;
  std::uint32_t looks_ = 0;
};

// The status of a request that waited in vain: CANCELLED, DEADLINE_EXCEEDED (`deadline`) or UNAVAILABLE
// (`queue_timeout_ns`).
Status drop_status(const Request& request, Nanos now);

}  // namespace fastserve
