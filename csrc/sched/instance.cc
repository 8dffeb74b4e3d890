#include "sched/instance.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <exception>

#include "base/log.h"

namespace fastserve {
namespace {

// Waking a sleeping thread costs the waker about 2 us and starts it about 20 us later; for less work than that left, the
// thread that is awake anyway is sooner done.
constexpr Nanos kWorthAWakeNs = 20 * kMicrosecond;
constexpr Nanos kRetryNs = 10 * kMillisecond;  // when there was no memory for a batch

// Answers of runs cheaper than this are collected, for so long at most: waking the owner costs about 2 us.
constexpr Nanos kCheapRunNs = 5 * kMicrosecond;
constexpr Nanos kMostHoldNs = 20 * kMicrosecond;

// Batches that an arena keeps beyond the depth: those whose responses are still being written.
constexpr std::size_t kSpareBatches = 6;

BatchArena* make_arena(const Signature& signature, HostAllocator& common, std::shared_ptr<HostAllocator> own,
                       std::size_t keep) {
  return own != nullptr ? new BatchArena(signature, std::move(own), keep)
                        : new BatchArena(signature, common, keep);
}

}  // namespace

constinit thread_local const Instance* Instance::starting_ = nullptr;

Instance::Instance(ModelQueue& queue, std::unique_ptr<BackendInstance> backend,
                   std::span<const std::int64_t> buckets, HostAllocator& allocator, InstanceSetup setup)
    : queue_(queue),
      backend_(std::move(backend)),
      buckets_(buckets.begin(), buckets.end()),
      line_(queue.instances.add(std::move(setup.name), std::max(backend_->depth(), 1),
                                backend_->depth_of_short_batches())),
      arena_(make_arena(queue.version().signature, allocator, std::move(setup.allocator),
                        static_cast<std::size_t>(line_.short_depth) + kSpareBatches)),
      shard_(queue.statistics.add_shard()),
      cpus_(std::move(setup.cpus)),
      order_(setup.order),
      seat_(std::move(setup.seat)) {
  if (seat_ != nullptr) seat_->sit(*this);
}

Instance::~Instance() {
  if (seat_ != nullptr) seat_->withdraw();  // from here on nobody wakes it
  if (spare_ != nullptr) BatchArena::give_back(*spare_);
  arena_->close();
}

// Whoever starts it lends it nothing: its CPUs are its own, or those of the process.
Status Instance::start_thread(const std::string& name, std::size_t stack_bytes) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  for (const int cpu : cpus_) CPU_SET(cpu, &cpus);
  const bool known = !cpus_.empty() || ::sched_getaffinity(::getpid(), sizeof cpus, &cpus) == 0;
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  if (known) ::pthread_attr_setaffinity_np(&attributes, sizeof cpus, &cpus);
  if (stack_bytes != 0) ::pthread_attr_setstacksize(&attributes, stack_bytes);
  const int error = ::pthread_create(&thread_, &attributes, &enter, this);
  ::pthread_attr_destroy(&attributes);
  if (error != 0) {
    return unavailable("no thread for instance '" + line_.name + "': " + std::strerror(error));
  }
  started_ = true;
  ::pthread_setname_np(thread_, name.substr(0, 15).c_str());
  return Status::ok();
}

void* Instance::enter(void* self) {
  static_cast<Instance*>(self)->loop();
  return nullptr;
}

void Instance::request_stop() {
  stopping_.store(true, std::memory_order_seq_cst);
  own_bell_.ring_all();
}

void Instance::join() {
  if (std::exchange(started_, false)) ::pthread_join(thread_, nullptr);
}

void Instance::loop() {
  for (;;) {
    // Tickets first: what is rung from here on is not slept over.
    const std::uint32_t queue_ticket = queue_.bell.ticket();
    const std::uint32_t own_ticket = own_bell_.ticket();
    if (stopping_.load(std::memory_order_seq_cst)) return;
    if (!try_claim()) {
      queue_.bell.ring();  // this thread may have been woken for work that it may not pull: pass it on
      own_bell_.wait(own_ticket, kNever);
      continue;
    }
    const Nanos wait_until = pull_until_full();
    const bool waits_for_work = has_room() && !awaits_seat_;
    release_claim();
    if (waits_for_work) {
      queue_.bell.wait(queue_ticket, wait_until);
    } else {
      own_bell_.wait(own_ticket, kNever);
    }
  }
}

// Claim holder (own thread). Returns when there is nothing to run now, or no room.
Nanos Instance::pull_until_full() {
  Nanos wait_until = kNever;
  bool owes_ring = !has_room();  // woken at full depth: another instance may be free
  while (has_room() && may_pull(owes_ring) && pull_one(wait_until, owes_ring, true)) {
  }
  send_held();
  if (owes_ring) queue_.ring();
  return wait_until;
}

// Claim holder (own thread, when there is a seat). True: the resources for one more batch are in hand.
bool Instance::may_pull(bool& owes_ring) {
  if (seat_ == nullptr) return true;
  if (!has_work()) {
    awaits_seat_ = false;
    seat_->withdraw();  // out of the line in which the end of its last batch may have put it
    return false;
  }
  awaits_seat_ = !seat_->acquire();
  owes_ring = owes_ring || awaits_seat_;  // another instance may need less
  return !awaits_seat_;
}

// `comes_back`: the caller pulls again as soon as this batch is started or done, so cheap work is left to it.
bool Instance::pull_one(Nanos& wait_until, bool& owes_ring, bool comes_back) {
  Batch* batch = empty_batch();
  if (batch == nullptr) {
    if (seat_ != nullptr) seat_->give_up();
    wait_until = monotonic_now() + kRetryNs;
    return false;
  }
  const Nanos now = monotonic_now();
  // Overdue is not done: while something runs, later than now (QueueView::starts_at).
  const Nanos starts_at =
      in_flight() == 0 ? 0 : std::max(now + 1, line_.expected_end.load(std::memory_order_relaxed));
  const ModelQueue::Pull pull = queue_.pull(*batch, line_.cost, now, starts_at);
  if (pull.taken == 0) {
    if (seat_ != nullptr) seat_->give_up();
    spare_ = batch;
    wait_until = pull.wait_until;
    owes_ring =
        !comes_back && pull.left != 0;  // somebody must watch the clock for those that wait for company
    return false;
  }
  owes_ring = pull.left != 0;
  if (owes_ring && (!comes_back || worth_a_wake(pull, batch->rows()))) {
    queue_.ring();
    owes_ring = false;
  }
  const Nanos expected = line_.cost.expected_ns(run_rows(batch->rows()));
  if (expected == 0 || expected >= kCheapRunNs || now - held_.since >= kMostHoldNs) send_held();
  batch->order = pull.order;
  start(*batch, now, expected);
  return true;
}

bool Instance::worth_a_wake(const ModelQueue::Pull& pull, std::int64_t rows) const {
  const Nanos expected = line_.cost.expected_ns(run_rows(rows));
  if (expected == 0) return true;  // nothing learned yet
  const auto batches_left = static_cast<Nanos>(pull.left / pull.taken + 1);
  return expected >= kWorthAWakeNs || expected * batches_left >= kWorthAWakeNs;
}

Batch* Instance::empty_batch() {
  if (spare_ != nullptr) return std::exchange(spare_, nullptr);
  try {
    return arena_->acquire();
  } catch (const std::bad_alloc&) {
    log(LogLevel::kError, "no memory for a batch of model '" + queue_.version().name + "'; trying again");
    return nullptr;
  }
}

std::int64_t Instance::run_rows(std::int64_t rows) const {
  const auto bucket = std::ranges::lower_bound(buckets_, rows);
  return bucket == buckets_.end() ? rows : *bucket;
}

void Instance::start(Batch& batch, Nanos now, Nanos expected) {
  if (line_.in_flight.fetch_add(1, std::memory_order_seq_cst) == 0) {
    line_.expected_end.store(now + expected, std::memory_order_relaxed);
  }
  queue_.version().retain();  // until complete() is through: nothing is destroyed under a finisher
  batch.instance = this;
  batch.on_finish = &on_finish;
  starting_ = this;
  run(batch);
  starting_ = nullptr;
}

void Instance::run(Batch& batch) {
  do {
    if (batch.slots().empty()) return batch.finish({Code::kCancelled, "nobody waits for it any more"});
    const std::int64_t rows = run_rows(batch.rows());
    const Status gathered = backend_->reads_in_place(batch)
                                ? batch.leave_in_place(rows)
                                : batch.gather(rows, backend_->binds_inputs(), backend_->device());
    batch.run_start = monotonic_now();
    if (!gathered.is_ok()) return batch.finish(gathered);
  } while (drop_dead(batch));
  try {
    backend_->start(batch);
  } catch (const std::exception& e) {
    // The contract forbids it; the batch is still there, because only the claim holder hands it out again.
    if (!batch.finished()) batch.finish(internal_error(std::string("the backend threw: ") + e.what()));
  } catch (...) {
    if (!batch.finished())
      batch.finish(internal_error("the backend threw something that is not a std::exception"));
  }
}

// The last look before the device: what expired or was cancelled since the pull is answered and its rows do not run. Whether
// there was any; then the rest is to be gathered again.
bool Instance::drop_dead(Batch& batch) {
  const Nanos now = batch.run_start;
  const auto dead = [now](const Slot& slot) {
    return slot.request->deadline <= now || slot.request->cancelled.load(std::memory_order_acquire);
  };
  if (std::ranges::none_of(batch.slots(), dead)) return false;
  std::vector<Request*> alive;
  Request* dropped = nullptr;
  for (const Slot& slot : batch.slots()) {
    if (dead(slot)) {
      slot.request->next_in_intake = dropped;
      dropped = slot.request;
    } else {
      alive.push_back(slot.request);
    }
  }
  const Nanos dequeued = batch.dequeued;
  batch.clear();
  batch.dequeued = dequeued;
  batch.run_start = batch.run_end = now;
  for (Request* request : alive) batch.add(request);
  queue_.answer_dropped(dropped, now);
  return true;
}

bool Instance::try_claim_idle() {
  if (seat_ != nullptr || !cpus_.empty()) return false;  // its own thread only
  if (in_flight() != 0 || line_.claimed.load(std::memory_order_relaxed) || !try_claim()) return false;
  if (in_flight() == 0) return true;
  release_claim();
  own_bell_.ring();
  return false;
}

void Instance::unclaim() {
  release_claim();
  own_bell_.ring();
}

void Instance::run_claimed_until(Nanos until) {
  Nanos wait_until = kNever;
  bool owes_ring = false;
  while (has_room() && pull_one(wait_until, owes_ring, true)) {
    if (owes_ring && monotonic_now() >= until) break;
  }
  send_held();
  release_claim();
  own_bell_.ring();
  // For what is left, or waits for company: somebody must watch the clock.
  if (owes_ring || wait_until != kNever) queue_.ring();
}

void Instance::run_claimed() {
  Nanos wait_until = kNever;
  bool owes_ring = false;
  pull_one(wait_until, owes_ring, false);
  send_held();
  release_claim();
  own_bell_.ring();
  if (owes_ring) queue_.ring();
}

}  // namespace fastserve
