#include "engine/parked_request.h"

#include <algorithm>
#include <utility>

#include "engine/engine.h"
#include "engine/waiting_rooms.h"
#include "sched/response_chain.h"

namespace fastserve {

std::uint64_t kept_bytes(const Request& request) {
  std::uint64_t inputs = 0;
  for (const TensorView& input : request.inputs) inputs += input.data.size();
  return std::max<std::uint64_t>(
      inputs, request.message.size());  // inputs point into the message, or stand elsewhere
}

ParkedRequest::ParkedRequest(Request& whole, WaitingRoom& room)
    : room_(room), whole_(whole), bytes_(kept_bytes(whole)) {
  inner_.model_name = whole.model_name;
  inner_.model_version = whole.model_version;
  inner_.id = whole.id;
  inner_.inputs = whole.inputs;
  inner_.requested_outputs = whole.requested_outputs;
  inner_.parameters = whole.parameters;
  inner_.priority = whole.priority;
  inner_.deadline = whole.deadline;
  inner_.queue_timeout_ns = whole.queue_timeout_ns;
  inner_.completions = whole.completions;
  inner_.shared_inputs = whole.shared_inputs;
  inner_.inputs_may_change = whole.inputs_may_change;
  inner_.complete = whole.complete;
  inner_.times = whole.times;
  inner_.version = &room;
  inner_.tap = this;
  inner_.cancelled.store(whole.cancelled.load(std::memory_order_relaxed), std::memory_order_relaxed);
}

Status ParkedRequest::submit(Submitter& submitter) {
  if (std::exchange(waits_, false)) room_.leave(bytes_);
  const std::lock_guard lock(mutex_);
  const Nanos parked = inner_.times.enqueued;
  Status status = submitter.submit(inner_);  // OK: it may be answered by now, on another thread
  if (status.is_ok()) return status;
  inner_.tap = this;  // whoever refuses takes taps off
  inner_.times.enqueued = parked;
  return status;
}

void ParkedRequest::refuse(Status status) {
  Response& response = inner_.response;
  response.request = &inner_;
  response.final = true;
  response.outputs.clear();
  response.status = std::move(status);
  inner_.times.delivered = monotonic_now();
  ResponseChain().add(inner_);
}

void ParkedRequest::cancel() {
  const std::lock_guard lock(mutex_);
  inner_.cancel();
}

// The whole takes over what the inner one has, its handle on the version too.
Request* ParkedRequest::answered(Request& /*inner*/) {
  if (std::exchange(waits_, false)) room_.leave(bytes_);
  whole_.version = inner_.version;
  whole_.rows = inner_.rows;
  whole_.input_order = std::move(inner_.input_order);
  whole_.output_order = std::move(inner_.output_order);
  whole_.requested_outputs = std::move(inner_.requested_outputs);
  whole_.parameters = std::move(inner_.parameters);
  whole_.regions = std::move(inner_.regions);
  whole_.times = inner_.times;
  Response& from = inner_.response;
  Response& to = whole_.response;
  to.request = &whole_;
  to.final = true;
  to.status = std::move(from.status);
  to.misplaced = from.misplaced;
  to.outputs = std::move(from.outputs);
  to.parameters = std::move(from.parameters);
  to.batch = std::move(from.batch);
  return &whole_;
}

}  // namespace fastserve
