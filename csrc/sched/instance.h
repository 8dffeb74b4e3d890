// One device worker: a BackendInstance, the thread that feeds it, and its batches. It pulls: when it has room it takes a
// batch from the model's queue, gathers and starts it. Finishing happens wherever the backend calls Batch::finish: the
// responses are delivered from there.
//
// Its thread starts with the first ring (sched/instance_set.h). Whoever holds the claim may pull and start: the instance's own thread, or a caller of Submitter::infer that found the
// instance idle. No wake is lost: the thread takes a ticket of both bells before it looks, a release of the claim and a
// finished batch ring the own bell, and a thread that was woken but may not pull passes the ring on.
// With a seat at the rate limiter only its own thread pulls, and only with the resources of one more batch in hand; while it
// waits for them it sleeps on its own bell, and what waits in the queue can expire as always.
// Thread: as said at each function.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "batch/arena.h"
#include "queue/doorbell.h"
#include "sched/model_queue.h"
#include "sched/order_gate.h"
#include "sched/rate_limiter.h"
#include "sched/response_chain.h"

namespace fastserve {

// What an instance is given beyond its backend.
struct InstanceSetup {
  std::string name = "0";      // as `explain` shows it
  std::vector<int> cpus;       // its thread stays there, and no other runs its batches; empty: anywhere
  OrderGate* order = nullptr;  // the version's, when it preserves the order; made with Instance::send_in_turn
  std::unique_ptr<RateLimiter::Seat> seat;   // nullptr: it needs no resources
  std::shared_ptr<HostAllocator> allocator;  // of its batches' buffers; nullptr: the one given beside it
};

class Instance final : private RateLimiter::Sitter {
 public:
  // Borrows the queue. `buckets`: the sizes to pad to, empty when the backend does not pad.
  Instance(ModelQueue& queue, std::unique_ptr<BackendInstance> backend, std::span<const std::int64_t> buckets,
           HostAllocator& allocator, InstanceSetup setup = {});
  ~Instance();  // stopped; nothing in flight
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  // --- loader thread
  BackendInstance& backend() { return *backend_; }  // for the warm-up, before start_thread
  BatchArena& arena() { return *arena_; }
  void request_stop();  // the queue's bell is to be rung for all afterwards
  void join();

  // --- any thread, one at a time, until it is OK once: UNAVAILABLE when the system gives no thread. A stack of 0: of the
  // system's size, which is only reserved.
  Status start_thread(const std::string& name, std::size_t stack_bytes = 0);

  // --- callers of infer: claims the instance when it runs nothing; then run_claimed or unclaim must follow.
  bool try_claim_idle();
  void unclaim();                       // leaves what waits to its own thread
  void run_claimed();                   // pulls and starts one batch, gives the claim back
  void run_claimed_until(Nanos until);  // the same with all that waits, as long as it lasts
  bool starts_promptly() const { return backend_->starts_promptly(); }

  std::int64_t run_rows(std::int64_t rows) const;  // the bucket for so many rows, when the device pads
  int in_flight() const { return line_.in_flight.load(std::memory_order_seq_cst); }
  LatencyTable& cost() { return line_.cost; }
  const std::string& name() const { return line_.name; }

  static void send_in_turn(BatchRef batch, bool kept_place);  // OrderGate::Send

 private:
  static void on_finish(Batch& batch, Status status);
  static void* enter(void* self);
  void loop();
  bool has_work() const override { return queue_.waiting() != 0; }
  void wake() override { own_bell_.ring(); }
  bool try_claim() { return !line_.claimed.exchange(true, std::memory_order_seq_cst); }
  void release_claim() { line_.claimed.store(false, std::memory_order_seq_cst); }
  bool has_room() const { return line_.has_room(); }
  Nanos pull_until_full();
  bool may_pull(bool& owes_ring);
  bool pull_one(Nanos& wait_until, bool& owes_ring, bool comes_back);
  bool worth_a_wake(const ModelQueue::Pull& pull, std::int64_t rows) const;
  Batch* empty_batch();
  void start(Batch& batch, Nanos now, Nanos expected);
  void run(Batch& batch);
  bool drop_dead(Batch& batch);
  void leave_device(std::int64_t ran_rows);
  void send_by_order(Batch& batch, BatchRef hold, bool keeps_place);
  void complete(Batch& batch, const Status& status);
  static std::int64_t answer(Batch& batch, ResponseChain& chain);
  BatchTimes settle_all(Batch& batch, Nanos now);
  void send_held();
  bool settle(Request& request, const Batch& batch, Nanos now, BatchCount& count);

  static constinit thread_local const Instance* starting_;  // inside whose start() this thread is

  ModelQueue& queue_;
  const std::unique_ptr<BackendInstance> backend_;
  const std::vector<std::int64_t> buckets_;  // empty: any number of rows runs as it is
  InstanceLine& line_;                       // on the queue's board
  BatchArena* const arena_;
  StatisticsShard& shard_;  // in the queue's statistics
  const std::vector<int> cpus_;
  OrderGate* const order_;
  const std::unique_ptr<RateLimiter::Seat> seat_;
  bool awaits_seat_ = false;  // own thread: it asked for resources and got none yet
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
  std::atomic<bool> stopping_{false};
  bool started_ = false;  // by whoever starts it, and joins afterwards
  pthread_t thread_{};
};

}  // namespace fastserve
