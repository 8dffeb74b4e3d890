// The end of a batch: its times and counters, its answers and the way they go out. The beginning is in instance.cc.
#include <algorithm>
#include <cstdint>
#include <utility>

#include "sched/instance.h"

namespace fastserve {

// By value because Batch::Finish is: whoever finishes a batch gives its status away.
void Instance::on_finish(Batch& batch, Status status) {  // NOLINT(performance-unnecessary-value-param)
  static_cast<Instance*>(batch.instance)->complete(batch, status);
}

// Any thread. On another than the one inside start(): after the last line the version, this instance and the batch may be
// gone.
void Instance::complete(Batch& batch, const Status& status) {
  batch.run_end = monotonic_now();
  BatchRef hold(&batch);  // the responses' references may all be released before this function is through
  // With more than one batch in flight this one may have waited for the one before: that is not its cost.
  line_.last_rows.store(batch.rows(), std::memory_order_relaxed);
  const Nanos previous = line_.last_end.exchange(batch.run_end, std::memory_order_relaxed);
  if (status.is_ok()) {
    line_.cost.record(batch.run_rows(), batch.run_end - std::max(batch.run_start, previous));
    if (line_.short_depth > line_.depth) line_.learn_room(line_.cost.expected_ns(batch.run_rows()));
  }
  batch.scatter(status);
  const bool keeps_place = order_ != nullptr && order_->crowded();
  // With a depth of 1 the own thread looks for work right after this; with more it may sleep until there is some.
  if (seat_ != nullptr) seat_->release(line_.depth == 1 && !keeps_place);
  if (order_ != nullptr) return send_by_order(batch, std::move(hold), keeps_place);
  const BatchTimes times = settle_all(batch, monotonic_now());
  if (starting_ == this) {
    if (held_.handles++ == 0) held_.since = times.now;
    held_.answered += answer(batch, held_.chain);
    leave_device(batch.run_rows());
    return;
  }
  const std::int64_t ran_rows = batch.run_rows();
  std::int64_t answered = 0;
  {
    ResponseChain chain;
    answered = answer(batch, chain);
  }
  hold.release();
  ServedVersion& version = queue_.version();
  leave_device(ran_rows);
  own_bell_.ring();
  version.answered_and_release(answered, 1);
}

// One batch less. The next one that is in flight already runs about as long as the one that ended.
void Instance::leave_device(std::int64_t ran_rows) {
  if (line_.in_flight.fetch_sub(1, std::memory_order_seq_cst) == 1) return;
  line_.expected_end.store(monotonic_now() + line_.cost.expected_ns(std::max<std::int64_t>(ran_rows, 1)),
                           std::memory_order_relaxed);
}

// As the end of complete(), when its turn comes, on this thread or another. The version is held until the gate is left, which
// other threads may empty of this batch meanwhile.
void Instance::send_by_order(Batch& batch, BatchRef hold, bool keeps_place) {
  ServedVersion& version = queue_.version();
  OrderGate& gate = *order_;
  version.retain();
  const std::uint64_t order = batch.order;
  if (!keeps_place) {
    leave_device(batch.run_rows());
    own_bell_.ring();
  }
  gate.pass(order, std::move(hold), keeps_place);
  version.release();
}

void Instance::send_in_turn(BatchRef batch, bool kept_place) {
  Instance& self = *static_cast<Instance*>(batch.get()->instance);
  ServedVersion& version = self.queue_.version();
  const std::int64_t ran_rows = batch.get()->run_rows();
  self.settle_all(*batch.get(), monotonic_now());
  std::int64_t answered = 0;
  {
    ResponseChain chain;
    answered = answer(*batch.get(), chain);
  }
  batch.release();
  if (kept_place) {
    self.leave_device(ran_rows);
    self.own_bell_.ring();
  }
  version.answered_and_release(answered, 1);
}

// Claim holder, outside start().
void Instance::send_held() {
  if (held_.handles == 0) return;
  held_.chain.send();
  queue_.version().answered_and_release(std::exchange(held_.answered, 0), std::exchange(held_.handles, 0));
}

// Adds every slot's response to the chain. Returns how many.
std::int64_t Instance::answer(Batch& batch, ResponseChain& chain) {
  for (const Slot& slot : batch.slots()) chain.add(*slot.request);
  return static_cast<std::int64_t>(batch.slots().size());
}

BatchTimes Instance::settle_all(Batch& batch, Nanos now) {
  BatchTimes times{
      batch.rows(),        0,  0, batch.run_start - batch.dequeued, batch.run_end - batch.run_start,
      now - batch.run_end, now};
  BatchCount count(shard_, queue_.statistics.common());
  for (const Slot& slot : batch.slots()) {
    if (!settle(*slot.request, batch, now, count)) continue;
    if (slot.request->is_part) {
      ++times.parts;
      continue;
    }
    ++times.served;
    times.served_rows += slot.rows;
  }
  count.add_batch(times);
  if (batch.copied_bytes != 0) {
    fastserve::count<Writers::kAny>(queue_.statistics.copied_bytes, batch.copied_bytes);
  }
  return times;
}

// Last look at one request before its response goes out: the deadline, its times, its counters. Whether it succeeded.
bool Instance::settle(Request& request, const Batch& batch, Nanos now, BatchCount& count) {
  Response& response = request.response;
  StageTimes& times = request.times;
  times.run_start = batch.run_start;
  times.run_end = batch.run_end;
  times.delivered = now;
  const Nanos took = now - (times.received != 0 ? times.received : times.enqueued);
  if (response.status.is_ok() && request.deadline <= now) {
    if (request.deadline <= batch.run_start)
      fastserve::count<Writers::kAny>(queue_.statistics.expired_executed);
    response.release();
    response.status = {Code::kDeadlineExceeded, "Deadline Exceeded"};
  }
  if (request.is_part) return response.status.is_ok();  // counted as a whole (engine/split_request.h)
  if (response.status.is_ok()) {
    count.add_request(times.dequeued - times.enqueued, took);
  } else {
    const bool late = response.status.code() == Code::kDeadlineExceeded;
    queue_.statistics.add(late                 ? Outcome::kDeadline
                          : response.misplaced ? Outcome::kClientMemory
                                               : Outcome::kBackend,
                          took);
  }
  return response.status.is_ok();
}

}  // namespace fastserve
