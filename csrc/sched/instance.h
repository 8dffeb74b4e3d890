// One device worker: a BackendInstance, the thread that feeds it, and its batches. It pulls: when it has room it takes a
// batch from the model's queue, gathers and starts it. Finishing happens wherever the backend calls Batch::finish: the
// responses are delivered from there.
//
// Whoever holds the claim may pull and start: the instance's own thread, or a caller of Submitter::infer that found the
// instance idle. No wake is lost: the thread takes a ticket of both bells before it looks, a release of the claim and a
// finished batch ring the own bell, and a thread that was woken but may not pull passes the ring on.
// Thread: as said at each function.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "backend/backend.h"
#include "batch/arena.h"
#include "queue/doorbell.h"
#include "sched/model_queue.h"
#include "sched/response_chain.h"

namespace fastserve {

class Instance {
 public:
  // Borrows the queue. `buckets`: the sizes to pad to, empty when the backend does not pad.
  Instance(ModelQueue& queue, std::unique_ptr<BackendInstance> backend, std::span<const std::int64_t> buckets,
           HostAllocator& allocator);
  ~Instance();  // stopped; nothing in flight
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  // --- loader thread
  BackendInstance& backend() { return *backend_; }  // for the warm-up, before start_thread
  BatchArena& arena() { return *arena_; }
  void start_thread(const std::string& name);  // throws std::system_error
  void request_stop();                         // the queue's bell is to be rung for all afterwards
  void join();

  // --- callers of infer: claims the instance when it runs nothing; then run_claimed must follow.
  bool try_claim_idle();
  void run_claimed();                   // pulls and starts one batch, gives the claim back
  void run_claimed_until(Nanos until);  // the same with all that waits, as long as it lasts
  bool starts_promptly() const { return backend_->starts_promptly(); }

  std::int64_t run_rows(std::int64_t rows) const;  // the bucket for so many rows, when the device pads
  int in_flight() const { return in_flight_.load(std::memory_order_seq_cst); }

 private:
  static void on_finish(Batch& batch, Status status);
  void loop();
  bool try_claim() { return !claimed_.exchange(true, std::memory_order_seq_cst); }
  void release_claim() { claimed_.store(false, std::memory_order_seq_cst); }
  bool has_room() const { return in_flight() < depth_; }
  Nanos pull_until_full();
  bool pull_one(Nanos& wait_until, bool& owes_ring, bool comes_back);
  bool worth_a_wake(const ModelQueue::Pull& pull, std::int64_t rows) const;
  Batch* empty_batch();
  void start(Batch& batch);
  void run(Batch& batch);
  void complete(Batch& batch, const Status& status);
  static std::int64_t answer(Batch& batch, ResponseChain& chain);
  BatchTimes settle_all(Batch& batch, Nanos now);
  void send_held();
  bool settle(Request& request, const Batch& batch, Nanos now, BatchCount& count);

  ModelQueue& queue_;
  const std::unique_ptr<BackendInstance> backend_;
  const std::vector<std::int64_t> buckets_;  // empty: any number of rows runs as it is
  const int depth_;
  BatchArena* const arena_;
  StatisticsShard& shard_;  // in the queue's statistics
  // Claim holder: finished inside start(), not yet sent. A cheap model's answers go out together, so that their owner is not
  // woken for each of them.
  struct Held {
    ResponseChain chain;
    std::int64_t answered = 0;
    std::int64_t handles = 0;  // on the version, one for each batch
    Nanos since = 0;
  };
  Held held_;
  Batch* spare_ = nullptr;  // claim holder: acquired, and the pull found nothing to put in
  Doorbell own_bell_;       // rung when the claim comes back and when a batch finishes
  std::atomic<bool> claimed_{false};
  std::atomic<int> in_flight_{0};   // batches; raised by the claim holder, lowered by finishers
  std::atomic<Nanos> last_end_{0};  // of the batch that finished last; relaxed: an estimate
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace fastserve
