#include "sched/model_queue.h"

#include <algorithm>

#include "sched/response_chain.h"

namespace fastserve {
namespace {

BatchLimits with_rows(BatchLimits limits, const Signature& signature) {
  limits.max_rows = std::max<std::int64_t>(signature.max_batch_rows, 1);
  std::ranges::sort(limits.preferred_rows);
  return limits;
}

// Of what drop_status says.
Outcome outcome_of(const Status& dropped) {
  if (dropped.code() == Code::kCancelled) return Outcome::kCancelled;
  return dropped.code() == Code::kDeadlineExceeded ? Outcome::kDeadline : Outcome::kQueueTimeout;
}

}  // namespace

Status drop_status(const Request& request, Nanos now) {
  if (request.cancelled.load(std::memory_order_acquire)) return {Code::kCancelled, "request was cancelled"};
  if (request.deadline <= now) return {Code::kDeadlineExceeded, "Deadline Exceeded"};
  return unavailable("Request timeout expired");
}

ModelQueue::ModelQueue(ServedVersion& version, BatchLimits limits, ExpiryTimer& timer, QueueLimits queue)
    : statistics(version.signature.max_batch_rows),
      version_(version),
      limits_(with_rows(std::move(limits), version.signature)),
      queue_(std::move(queue)),
      uniform_(uniform(version.signature)),
      timer_(timer),
      pending_(queue_.default_priority) {
  timer_.add(*this);
}

void ModelQueue::prepare(std::vector<std::int64_t> prepared_rows, bool pads) {
  limits_.prepared_rows = std::move(prepared_rows);
  limits_.pads = pads;
}

void ModelQueue::leave_timer() { timer_.remove(*this); }

bool ModelQueue::admit() {
  const std::int64_t before = submitted_.fetch_add(1, std::memory_order_relaxed);
  if (before - taken_.load(std::memory_order_relaxed) < limits_.max_queue_requests) return true;
  submitted_.fetch_sub(1, std::memory_order_relaxed);
  statistics.add(Outcome::kQueueFull, 0);
  return false;
}

bool ModelQueue::push(Request& request) { return intake_.push(&request); }

void ModelQueue::announce_expiry(Nanos expires) {
  if (lower(next_expiry_, expires)) timer_.wake_by(expires);
}

void ModelQueue::notice_cancel() {
  if (cancel_noticed_.exchange(true, std::memory_order_seq_cst)) return;  // partner: drop_expired
  next_expiry_.store(0, std::memory_order_seq_cst);
  timer_.wake_by(0);
}

std::int64_t ModelQueue::waiting() const {
  const std::int64_t taken = taken_.load(std::memory_order_relaxed);
  return std::max<std::int64_t>(submitted_.load(std::memory_order_relaxed) - taken, 0);
}

void ModelQueue::take_intake() {
  for (Request* request = intake_.take_all(); request != nullptr;) {
    Request* next = request->next_in_intake;
    pending_.add(*request);
    request = next;
  }
}

// Shows the policy as much of the front as fills a batch. Cancelled requests on the way leave the set.
Decision ModelQueue::look(Nanos now, Request*& cancelled) {
  view_rows_.clear();
  QueueView view;
  std::int64_t rows = 0;
  const Request* head = nullptr;
  for (Request* request = pending_.first(); request != nullptr && rows < limits_.max_rows;) {
    Request* following = pending_.next(*request);
    if (request->cancelled.load(std::memory_order_acquire)) {
      pending_.remove(*request);
      request->next_in_intake = cancelled;
      cancelled = request;
    } else if (head != nullptr && !uniform_ && !may_share(version_.signature, *head, *request)) {
      view.cut = true;
      break;
    } else {
      if (head == nullptr) head = request;
      view_rows_.push_back(request->rows);
      rows += request->rows;
    }
    request = following;
  }
  constexpr std::uint32_t kExploreEvery = 64;
  view.rows = view_rows_;
  view.explore = ++looks_ % kExploreEvery == 0;
  view.oldest_enqueued = pending_.oldest_enqueued();
  view.earliest_deadline = pending_.earliest_expiry();
  return decide(limits_, view, cost, now);
}

ModelQueue::Pull ModelQueue::pull(Batch& batch, Nanos now) {
  Pull out;
  Request* expired = nullptr;
  Request* cancelled = nullptr;
  {
    const std::lock_guard token(pull_token_);
    const std::size_t before = pending_.size();
    std::size_t arrived = 0;
    take_intake();
    arrived = pending_.size() - before;
    expired = pending_.take_expired(now);
    const Decision decision = look(now, cancelled);
    for (std::size_t i = 0; i < decision.requests; ++i) {
      Request& request = *pending_.first();
      pending_.remove(request);
      request.times.dequeued =
          std::max(now, request.times.enqueued);  // it may have come after the look at the clock
      batch.add(&request);
    }
    batch.dequeued = now;
    out = {decision.requests, pending_.size(), decision.wait_until};
    taken_.fetch_add(static_cast<std::int64_t>(before + arrived - out.left), std::memory_order_relaxed);
  }
  answer(expired, now, nullptr);
  answer(cancelled, now, nullptr);
  return out;
}

Nanos ModelQueue::drop_expired(Nanos now) {
  Request* expired = nullptr;
  Request* cancelled = nullptr;
  {
    const std::lock_guard token(pull_token_);
    // Raised before the intake is taken: whoever pushes after that announces after the raise.
    next_expiry_.store(kNever, std::memory_order_seq_cst);
    const bool look_at_cancelled = cancel_noticed_.exchange(false, std::memory_order_seq_cst);
    take_intake();
    const std::size_t before = pending_.size();
    expired = pending_.take_expired(now);
    if (look_at_cancelled) cancelled = pending_.take_cancelled();
    taken_.fetch_add(static_cast<std::int64_t>(before - pending_.size()), std::memory_order_relaxed);
    lower(next_expiry_, pending_.earliest_expiry());
  }
  answer(expired, now, nullptr);
  answer(cancelled, now, nullptr);
  return next_expiry();
}

void ModelQueue::refuse_waiting(const Status& status) {
  Request* all = nullptr;
  {
    const std::lock_guard token(pull_token_);
    take_intake();
    taken_.fetch_add(static_cast<std::int64_t>(pending_.size()), std::memory_order_relaxed);
    all = pending_.take_all();
  }
  answer(all, monotonic_now(), &status);
}

// Without a status, each request's own reason.
void ModelQueue::answer(Request* list, Nanos now, const Status* status) {
  if (list == nullptr) return;
  std::int64_t count = 0;
  {
    ResponseChain chain;
    while (list != nullptr) {
      Request& request = *list;
      list = list->next_in_intake;
      Response& response = request.response;
      response.request = &request;
      response.status = status != nullptr ? *status : drop_status(request, now);
      response.final = true;
      response.outputs.clear();
      request.times.delivered = now;
      statistics.add(status != nullptr ? Outcome::kUnloading : outcome_of(response.status),
                     now - request.times.enqueued);
      chain.add(request);
      ++count;
    }
  }
  version_.answered(count);
}

}  // namespace fastserve
