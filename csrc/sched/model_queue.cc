#include "sched/model_queue.h"

#include <algorithm>
#include <bit>
#include <utility>

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

class ModelQueue::Leaving {
 public:
  explicit Leaving(ModelQueue& queue) : queue_(queue) {}
  ~Leaving() { flush(); }
  Leaving(const Leaving&) = delete;
  Leaving& operator=(const Leaving&) = delete;
  void add(const Request& request) {
    const std::size_t level = queue_.rules_.level_of(request.priority);
    if (level != level_) flush();
    level_ = level;
    sum_ += packed(request.rows);
  }

 private:
  void flush() {
    if (sum_ != 0) queue_.waiting_[level_].fetch_sub(std::exchange(sum_, 0), std::memory_order_relaxed);
  }
  ModelQueue& queue_;
  std::size_t level_ = 0;
  std::uint64_t sum_ = 0;
};

ModelQueue::ModelQueue(ServedVersion& version, BatchLimits limits, ExpiryTimer& timer, QueueLimits queue)
    : statistics(version.signature.max_batch_rows),
      version_(version),
      limits_(with_rows(std::move(limits), version.signature)),
      queue_(std::move(queue)),
      rules_(queue_),
      target_{limits_.target_p99_ns},
      uniform_(uniform(version.signature)),
      timer_(timer),
      pending_(rules_),
      log_(limits_.max_rows, statistics) {
  timer_.add(*this);
}

void ModelQueue::prepare(std::vector<std::int64_t> prepared_rows, bool pads) {
  limits_.prepared_rows = std::move(prepared_rows);
  limits_.pads = pads;
  if (instances.empty()) return;
  drain_.store(
      drain_rate(limits_, instances.lines().front()->cost, static_cast<int>(instances.lines().size())));
}

void ModelQueue::leave_timer() { timer_.remove(*this); }

// All that is served before a newcomer of `level`, but for its own level.
ModelQueue::Load ModelQueue::waiting_before(std::size_t level) const {
  Load out;
  std::uint32_t higher = levels_used_.load(std::memory_order_relaxed) & ((1U << level) - 1);
  for (; higher != 0; higher &= higher - 1) {
    const Load load = waiting_of(static_cast<std::size_t>(std::countr_zero(higher)));
    out.requests += load.requests;
    out.rows += load.rows;
  }
  return out;
}

// A fast model would be through with so many in no time: a short stall of the machine must not make it refuse.
bool ModelQueue::too_many(const Load& before) const {
  if (before.requests < limits_.max_queue_requests) return false;
  if (limits_.max_queue_age_ns == 0) return true;
  const Nanos wait = served_within(drain_.load(), before.rows + 1);
  return wait == 0 || wait > limits_.max_queue_age_ns;
}

Status ModelQueue::admit(const Request& request) {
  const std::size_t level = rules_.level_of(request.priority);
  const std::uint32_t bit = 1U << level;
  if ((levels_used_.load(std::memory_order_relaxed) & bit) == 0) {
    levels_used_.fetch_or(bit, std::memory_order_relaxed);
  }
  const Load own = unpacked(waiting_[level].fetch_add(packed(request.rows), std::memory_order_relaxed));
  const Load higher = waiting_before(level);
  const Load before{own.requests + higher.requests, own.rows + higher.rows};
  const std::int64_t most_of_level = rules_.policy_of_level(level).max_requests;
  if (too_many(before) || (most_of_level != 0 && own.requests >= most_of_level)) {
    return refuse(level, request, Outcome::kQueueFull, "Exceeds maximum queue size");
  }
  if (request.deadline == kNever && target_.p99_ns == 0) return Status::ok();
  const Nanos now = request.times.enqueued;
  const AdmissionView view{before.requests,          before.rows,   request.rows,
                           instances.next_free(now), drain_.load(), shares_.above(level)};
  const Verdict verdict = admission(view, now, request.deadline, target_);
  if (verdict.admit) return Status::ok();
  return refuse(level, request, Outcome::kTooLate, refusal_text(verdict, view, request.deadline != kNever));
}

Status ModelQueue::refuse(std::size_t level, const Request& request, Outcome outcome, std::string reason) {
  waiting_[level].fetch_sub(packed(request.rows), std::memory_order_relaxed);
  statistics.add(outcome, 0);
  return unavailable(std::move(reason));
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
  std::int64_t out = 0;
  for (std::uint32_t used = levels_used_.load(std::memory_order_relaxed); used != 0; used &= used - 1) {
    out += waiting_of(static_cast<std::size_t>(std::countr_zero(used))).requests;
  }
  return out;
}

void ModelQueue::take_intake() {
  for (const auto& line : instances.lines()) {
    const Nanos ended = line->last_end.load(std::memory_order_relaxed);
    if (ended <= answered_at_) continue;
    answered_at_ = ended;
    arrivals_.answered(line->last_rows.load(std::memory_order_relaxed), ended);
  }
  for (Request* request = intake_.take_all(); request != nullptr;) {
    Request* next = request->next_in_intake;
    pending_.add(*request);
    arrivals_.arrived(request->rows, request->times.enqueued);
    request = next;
  }
}

// As much of the front as fills a batch. Cancelled requests on the way leave the set.
void ModelQueue::view_front(QueueView& view, Request*& cancelled) {
  front_.clear();
  front_rows_.clear();
  std::int64_t rows = 0;
  Request* const leader = overtaken_ >= kOvertakingBatches ? pending_.oldest() : nullptr;
  Request* following = nullptr;
  for (Request* request = leader != nullptr ? leader : pending_.first();
       request != nullptr && rows < limits_.max_rows; request = following) {
    following = request == leader && front_.empty() ? pending_.first() : pending_.next(*request);
    if (following == leader && leader != nullptr) following = pending_.next(*leader);
    if (request->cancelled.load(std::memory_order_acquire)) {
      pending_.remove(*request);
      request->next_in_intake = cancelled;
      cancelled = request;
    } else if (!front_.empty() && !uniform_ && !may_share(version_.signature, *front_.front(), *request)) {
      view.cut = true;
      break;
    } else {
      front_.push_back(request);
      front_rows_.push_back(request->rows);
      rows += request->rows;
    }
  }
  view.rows = front_rows_;
  view.cut = view.cut || rows >= limits_.max_rows;
}

Decision ModelQueue::look(const CostModel& cost, Nanos now, Nanos starts_at, Request*& cancelled) {
  constexpr std::uint32_t kExploreEvery = 64;
  QueueView view;
  view_front(view, cancelled);
  if (view.rows.empty()) return {};
  if (++looks_ % kExploreEvery == 0) view.explore = looks_ % (2 * kExploreEvery) == 0 ? -1 : 1;
  view.oldest_enqueued = pending_.oldest_enqueued();
  view.earliest_deadline = pending_.earliest_expiry();
  view.starts_at = starts_at == 0 ? 0 : std::max(starts_at, now + 1);  // overdue is still running
  const InstanceBoard::Others others = instances.others(cost, now);
  view.instances = static_cast<int>(instances.lines().size());
  view.idle_instances = 1 + others.resting;
  view.next_free_at = others.next_free_at;
  if (!view.cut) arrivals_.describe(view, now);
  return decide(limits_, view, cost, now);
}

std::int64_t ModelQueue::run_rows(std::int64_t rows) const {
  if (!limits_.pads) return rows;
  const auto size = std::ranges::lower_bound(limits_.prepared_rows, rows);
  return size == limits_.prepared_rows.end() ? rows : *size;
}

// What was decided, for `explain`, and what submitters count with.
void ModelQueue::note(const Decision& decision, const CostModel& cost, Nanos now, Nanos waited) {
  constexpr std::uint64_t kPublishEvery = 32;
  constexpr Nanos kSlow = 100 * kMicrosecond;  // such a batch may as well pay for the publication
  const std::int64_t runs = run_rows(decision.rows);
  log_.count(now, decision, runs, waited);
  if (decision.requests == 0) return;
  if (next_order_++ % kPublishEvery != 0 && cost.expected_ns(runs) < kSlow) return;
  drain_.store(drain_rate(limits_, cost, static_cast<int>(instances.lines().size())));
}

// Moves the first requests of what look() showed into the batch. Returns how long they waited, all together.
Nanos ModelQueue::fill(Batch& batch, const Decision& decision, Nanos now) {
  if (decision.requests == 0) return 0;
  const Request* const oldest = pending_.oldest();
  bool has_oldest = false;
  Nanos waited = 0;
  Leaving leaving(*this);
  for (std::size_t i = 0; i < decision.requests; ++i) {
    Request& request = *front_[i];
    has_oldest = has_oldest || &request == oldest;
    pending_.remove(request);
    leaving.add(request);
    shares_.served(rules_.level_of(request.priority), request.rows);
    request.times.dequeued =
        std::max(now, request.times.enqueued);  // it may have come after the look at the clock
    waited += request.times.dequeued - request.times.enqueued;
    batch.add(&request);
  }
  overtaken_ = has_oldest ? 0 : overtaken_ + 1;
  batch.dequeued = now;
  return waited;
}

ModelQueue::Pull ModelQueue::pull(Batch& batch, const CostModel& cost, Nanos now, Nanos starts_at) {
  Pull out;
  Request* expired = nullptr;
  Request* cancelled = nullptr;
  {
    const std::lock_guard token(pull_token_);
    take_intake();
    expired = pending_.take_expired(now);
    const Decision decision = look(cost, now, starts_at, cancelled);
    leave_counts(expired);
    leave_counts(cancelled);
    const Nanos waited = fill(batch, decision, now);
    out = {decision.requests, pending_.size(), decision.wait_until, next_order_};
    note(decision, cost, now, waited);
  }
  answer(expired, now, nullptr);
  answer(cancelled, now, nullptr);
  return out;
}

void ModelQueue::leave_counts(const Request* list) {
  if (list == nullptr) return;
  Leaving leaving(*this);
  for (; list != nullptr; list = list->next_in_intake) leaving.add(*list);
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
    expired = pending_.take_expired(now);
    if (look_at_cancelled) cancelled = pending_.take_cancelled();
    leave_counts(expired);
    leave_counts(cancelled);
    lower(next_expiry_, pending_.earliest_expiry());
  }
  answer(expired, now, nullptr);
  answer(cancelled, now, nullptr);
  return next_expiry();
}

Request* ModelQueue::take_waiting() {
  const std::lock_guard token(pull_token_);
  take_intake();
  Request* const all = pending_.take_all();
  leave_counts(all);
  return all;
}

void ModelQueue::refuse_waiting(const Status& status, Outcome outcome) {
  answer(take_waiting(), monotonic_now(), &status, outcome);
}

// Without a status, each request's own reason.
void ModelQueue::answer(Request* list, Nanos now, const Status* status, Outcome outcome) {
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
      if (!request.is_part) {
        statistics.add(status != nullptr ? outcome : outcome_of(response.status),
                       now - request.times.enqueued);
      }
      chain.add(request);
      ++count;
    }
  }
  version_.answered(count);
}

}  // namespace fastserve
