#include "sched/model_queue.h"

#include <gtest/gtest.h>

#include <deque>
#include <optional>

#include "batch/arena.h"
#include "support/samples.h"

namespace fastserve {
namespace {

class ModelQueueTest : public ::testing::Test {
 protected:
  void make(Signature signature, BatchLimits limits = {}, QueueLimits levels = {}) {
    version_.emplace(std::move(signature));
    if (limits.max_queue_requests == 0) limits.max_queue_requests = 100;
    queue_.emplace(*version_, limits, timer_, std::move(levels));
    arena_ = new BatchArena(version_->signature, plain_host_allocator(), 4);
  }
  ~ModelQueueTest() override {
    if (queue_) queue_->leave_timer();
    if (arena_ != nullptr) arena_->close();
  }
  // Submits as the engine does.
  RowRequest& submit(std::int64_t rows = 1, Nanos deadline = kNever, std::int64_t columns = 2,
                     std::uint32_t priority = 0) {
    RowRequest& sample =
        requests_.emplace_back(&completions_, rows, static_cast<int>(requests_.size()), columns);
    sample.request.deadline = deadline;
    sample.request.priority = priority;
    const Status admitted = offer(sample.request);
    EXPECT_TRUE(admitted.is_ok()) << admitted.message();
    return sample;
  }
  Status offer(Request& request) {
    prepare(request, version_->signature, now_);
    request.expires = queue_->expiry_of(request, now_);
    EXPECT_TRUE(version_->try_begin_request());
    if (Status status = queue_->admit(request); !status.is_ok()) {
      version_->abandon_request();
      return status;
    }
    request.version = &*version_;
    queue_->push(request);
    return Status::ok();
  }
  // Of one more request: "" when it is admitted.
  std::string refusal(std::uint32_t priority = 0, Nanos deadline = kNever) {
    RowRequest& sample = requests_.emplace_back(&completions_, 1, 0);
    sample.request.priority = priority;
    sample.request.deadline = deadline;
    const Status status = offer(sample.request);
    EXPECT_TRUE(status.is_ok() || status.code() == Code::kUnavailable);
    return status.message();
  }
  std::vector<Request*> pull(ModelQueue::Pull* out = nullptr) {
    Batch* batch = arena_->acquire();
    const ModelQueue::Pull pulled = queue_->pull(*batch, cost_, now_);
    if (out != nullptr) *out = pulled;
    std::vector<Request*> requests;
    for (const Slot& slot : batch->slots()) requests.push_back(slot.request);
    BatchArena::give_back(*batch);
    return requests;
  }
  std::vector<Response*> answered() { return wait_for(completions_, SIZE_MAX, 0); }

  Nanos now_ = 1000;
  ExpiryTimer timer_;
  std::optional<BareVersion> version_;
  CompletionQueue completions_{CompletionQueue::Wake::kFutex};
  std::deque<RowRequest> requests_;
  std::optional<ModelQueue> queue_;
  BatchArena* arena_ = nullptr;
  LatencyTable cost_;
};

using Requests = std::vector<Request*>;

TEST_F(ModelQueueTest, PullsWhatFitsInOrderOfPriorityAndArrival) {
  make(row_signature(4));
  Request& a = submit(2).request;
  Request& b = submit(2).request;
  Request& c = submit(1, kNever, 2, 1).request;
  ModelQueue::Pull pulled;
  EXPECT_EQ(pull(&pulled), (Requests{&c, &a}));
  EXPECT_EQ(pulled.taken, 2U);
  EXPECT_EQ(pulled.left, 1U);
  EXPECT_EQ(queue_->waiting(), 1);
  EXPECT_EQ(pull(), (Requests{&b}));
  EXPECT_EQ(pull(), (Requests{}));
  EXPECT_EQ(b.times.dequeued, now_);
}

TEST_F(ModelQueueTest, RefusesTheNewestWhenFull) {
  BatchLimits limits;
  limits.max_queue_requests = 2;
  make(row_signature(4), limits);
  submit();
  submit();
  EXPECT_EQ(refusal(), "Exceeds maximum queue size");
  EXPECT_EQ(refusal(), "Exceeds maximum queue size");
  EXPECT_EQ(queue_->statistics.of(Outcome::kQueueFull).count.load(), 2U);
  EXPECT_EQ(queue_->waiting(), 2);
  pull();
  EXPECT_EQ(refusal(), "");
}

TEST_F(ModelQueueTest, MoreWaitWhileTheyAreServedSoon) {
  BatchLimits limits;
  limits.max_queue_requests = 2;
  limits.max_queue_age_ns = 25 * kMillisecond;
  make(row_signature(1), limits);
  submit();
  submit();
  EXPECT_EQ(refusal(), "Exceeds maximum queue size") << "nobody knows how fast it is";
  InstanceLine& line = queue_->instances.add("0", 1);
  for (int i = 0; i < 20; ++i) line.cost.record(1, 5 * kMillisecond);
  queue_->prepare({1}, false);
  EXPECT_EQ(refusal(), "");
  EXPECT_EQ(refusal(), "");
  EXPECT_EQ(refusal(), "") << "the fifth, 25 ms";
  EXPECT_EQ(refusal(), "Exceeds maximum queue size");
  EXPECT_EQ(queue_->waiting(), 5);
}

TEST_F(ModelQueueTest, OnlyWhatGoesFirstFillsTheQueue) {
  BatchLimits limits;
  limits.max_queue_requests = 2;
  make(row_signature(1), limits);
  submit(1, kNever, 2, 9);
  submit(1, kNever, 2, 9);
  EXPECT_EQ(refusal(9), "Exceeds maximum queue size");
  EXPECT_EQ(refusal(10), "Exceeds maximum queue size") << "they would all be served before it";
  EXPECT_EQ(refusal(3), "");
  EXPECT_EQ(refusal(3), "") << "full of low priority only";
  EXPECT_EQ(refusal(3), "Exceeds maximum queue size");
  EXPECT_EQ(refusal(1), "");
  EXPECT_EQ(queue_->waiting(), 5);
  EXPECT_EQ(queue_->waiting_of(8).requests, 2);
  EXPECT_EQ(queue_->waiting_of(2).rows, 2);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(pull().size(), 1U);
  EXPECT_EQ(queue_->waiting(), 0);
}

TEST_F(ModelQueueTest, ALevelsOwnLimitHoldsWithoutDynamicBatching) {
  QueueLimits levels;
  levels.priority_levels = 2;
  levels.default_priority = 2;
  levels.by_priority[2].max_requests = 3;
  make(row_signature(0), {}, levels);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(refusal(), "") << i;
  EXPECT_EQ(refusal(), "Exceeds maximum queue size");
  EXPECT_EQ(refusal(7), "Exceeds maximum queue size") << "beyond the levels: the default one";
  EXPECT_EQ(refusal(1), "") << "another level";
  EXPECT_EQ(pull().size(), 1U);
  EXPECT_EQ(refusal(), "Exceeds maximum queue size") << "the one of level 1 went";
  EXPECT_EQ(pull().size(), 1U);
  EXPECT_EQ(refusal(), "");
}

TEST_F(ModelQueueTest, RefusesAtOnceWhatWouldMissItsDeadline) {
  make(row_signature(1));
  InstanceLine& line = queue_->instances.add("0", 1);
  for (int i = 0; i < 20; ++i) line.cost.record(1, 10 * kMillisecond);
  queue_->prepare({1}, false);
  EXPECT_EQ(refusal(0, now_ + 11 * kMillisecond), "") << "nothing before it, and nobody works";
  line.in_flight = 1;
  line.expected_end = now_ + 10 * kMillisecond;
  submit();
  submit();
  const std::string text = refusal(0, now_ + 25 * kMillisecond);
  EXPECT_NE(text.find("would miss its deadline"), std::string::npos) << text;
  EXPECT_NE(text.find("25 ms"), std::string::npos) << text;
  EXPECT_EQ(queue_->statistics.of(Outcome::kTooLate).count.load(), 1U);
  EXPECT_EQ(queue_->waiting(), 3);
  EXPECT_EQ(refusal(0, now_ + 200 * kMillisecond), "") << "in time";
  EXPECT_EQ(refusal(1, now_ + 25 * kMillisecond), "") << "what waits does not go before it";
  EXPECT_EQ(refusal(0, kNever), "") << "no deadline, no target: only the limit refuses";
}

TEST_F(ModelQueueTest, TheTargetRefusesWhereThereIsNoDeadline) {
  BatchLimits limits;
  limits.target_p99_ns = 20 * kMillisecond;
  make(row_signature(1), limits);
  InstanceLine& line = queue_->instances.add("0", 1);
  for (int i = 0; i < 20; ++i) line.cost.record(1, 10 * kMillisecond);
  queue_->prepare({1}, false);
  line.in_flight = 1;
  line.expected_end = now_ + 5 * kMillisecond;
  std::string text;
  int admitted = 0;
  while ((text = refusal()).empty()) ASSERT_LT(++admitted, 10);
  EXPECT_GE(admitted, 1);
  EXPECT_LE(admitted, 2) << "5 ms + 10 ms each, and 30 ms to go";
  EXPECT_NE(text.find("would miss the latency target"), std::string::npos) << text;
}

TEST_F(ModelQueueTest, EverySixteenthBatchIsLedByWhoWaitedLongest) {
  make(row_signature(1));
  Request& low = submit(1, kNever, 2, 9).request;
  Request& lower = submit(1, kNever, 2, 16).request;
  int before_low = 0;
  int before_lower = 0;
  for (int i = 0; i < 100 && before_lower == 0; ++i) {
    now_ += 1000;
    submit(1, kNever, 2, 1);
    const Requests batch = pull();
    ASSERT_EQ(batch.size(), 1U);
    if (batch.front() == &low) before_low = i;
    if (batch.front() == &lower) before_lower = i;
  }
  EXPECT_EQ(before_low, ModelQueue::kOvertakingBatches);
  EXPECT_EQ(before_lower, 2 * ModelQueue::kOvertakingBatches + 1);
}

TEST_F(ModelQueueTest, TheOneThatWaitedLongestIsFollowedByTheHighest) {
  make(row_signature(3));
  Request& low = submit(1, kNever, 2, 9).request;
  Request* high = nullptr;
  now_ += 1000;
  for (int i = 0; i < ModelQueue::kOvertakingBatches; ++i) {
    for (int n = 0; n < 3; ++n) high = &submit(1, kNever, 2, 1).request;
    ASSERT_EQ(pull().back(), high);
  }
  Request& a = submit(1, kNever, 2, 1).request;
  Request& b = submit(1, kNever, 2, 1).request;
  Request& c = submit(1, kNever, 2, 1).request;
  EXPECT_EQ(pull(), (Requests{&low, &a, &b}));
  EXPECT_EQ(pull(), (Requests{&c}));
}

TEST_F(ModelQueueTest, OfAPolicysTimeoutTheShorterOneCounts) {
  QueueLimits levels;
  levels.default_policy.timeout_ns = 1000;
  levels.by_priority[1].timeout_ns = 1000;
  levels.by_priority[1].request_may_lower = false;
  make(row_signature(4), {}, levels);
  const auto timed = [&](std::uint32_t priority, Nanos timeout) -> Request& {
    RowRequest& sample = requests_.emplace_back(&completions_, 1, 0);
    sample.request.priority = priority;
    sample.request.queue_timeout_ns = timeout;
    EXPECT_TRUE(offer(sample.request).is_ok());
    return sample.request;
  };
  Request& lowered = timed(2, 400);
  Request& not_raised = timed(2, 9000);
  Request& not_lowered = timed(1, 400);
  const Nanos began = now_;
  now_ = began + 399;
  EXPECT_EQ(queue_->drop_expired(now_), began + 400);
  now_ = began + 400;
  EXPECT_EQ(queue_->drop_expired(now_), began + 1000);
  EXPECT_EQ(answered().size(), 1U);
  EXPECT_EQ(lowered.response.status.message(), "Request timeout expired");
  now_ = began + 1000;
  EXPECT_EQ(queue_->drop_expired(now_), kNever);
  EXPECT_EQ(answered().size(), 2U);
  EXPECT_EQ(not_raised.response.status.code(), Code::kUnavailable);
  EXPECT_EQ(not_lowered.response.status.code(), Code::kUnavailable);
}

TEST_F(ModelQueueTest, DelayServesWhatTimedOutAfterTheRest) {
  QueueLimits levels;
  levels.default_policy.timeout_ns = 100;
  levels.default_policy.on_timeout = QueuePolicy::OnTimeout::kDelay;
  make(row_signature(1), {}, levels);
  Request& late = submit().request;
  Request& dead = submit(1, now_ + 150).request;
  now_ += 120;
  Request& fresh = submit().request;
  EXPECT_EQ(queue_->drop_expired(now_), dead.deadline);
  EXPECT_TRUE(answered().empty());
  EXPECT_EQ(pull(), (Requests{&fresh}));
  now_ = dead.deadline;
  queue_->drop_expired(now_);
  EXPECT_EQ(answered().size(), 1U);
  EXPECT_EQ(dead.response.status.code(), Code::kDeadlineExceeded);
  EXPECT_EQ(pull(), (Requests{&late}));
  EXPECT_EQ(queue_->waiting(), 0);
}

TEST_F(ModelQueueTest, WritesDownWhatItDecided) {
  BatchLimits limits;
  limits.max_queue_delay_ns = 500;
  make(row_signature(4), limits);
  EXPECT_TRUE(queue_->log().read(now_).batches.empty());
  pull();
  EXPECT_EQ(queue_->log().read(now_).seconds, 0) << "nothing waited: nothing was decided";
  submit(2);
  submit(2);
  pull();
  submit(1);
  pull();
  const DecisionLog::View view = queue_->log().read(now_);
  ASSERT_EQ(view.batches.size(), 1U);
  EXPECT_EQ(view.batches.front().rows, 4);
  EXPECT_EQ(view.batches.front().count, 1U);
  EXPECT_EQ(view.requests, 2U);
  EXPECT_EQ(view.rows, 4U);
  std::uint64_t decisions = 0;
  for (const std::uint64_t count : view.decisions) decisions += count;
  EXPECT_EQ(decisions, 2U) << "one batch, one wait for company";
}

TEST_F(ModelQueueTest, WaitsForCompanyAsLongAsThePolicySays) {
  BatchLimits limits;
  limits.max_queue_delay_ns = 500;
  make(row_signature(4), limits);
  submit();
  ModelQueue::Pull pulled;
  EXPECT_TRUE(pull(&pulled).empty());
  EXPECT_EQ(pulled.wait_until, 1500);
  EXPECT_EQ(pulled.left, 1U);
  now_ = 1500;
  EXPECT_EQ(pull().size(), 1U);
}

TEST_F(ModelQueueTest, DoesNotMixShapes) {
  make({{{"x", DType::kInt32, Shape{-1, -1}, false}}, {{"y", DType::kInt32, Shape{-1, -1}, false}}, 8});
  Request& a = submit(1, kNever, 2).request;
  Request& b = submit(1, kNever, 2).request;
  Request& c = submit(1, kNever, 3).request;
  Request& d = submit(1, kNever, 2).request;
  EXPECT_EQ(pull(), (Requests{&a, &b}));
  EXPECT_EQ(pull(), (Requests{&c}));
  EXPECT_EQ(pull(), (Requests{&d}));
}

TEST_F(ModelQueueTest, ExpiredAndCancelledWorkNeverRuns) {
  make(row_signature(4));
  Request& late = submit(1, 1500).request;
  Request& slow = submit(1).request;
  slow.queue_timeout_ns = 400;  // as submit computes it:
  slow.expires = 1400;
  Request& gone = submit(1).request;
  Request& good = submit(1).request;
  gone.cancelled = true;
  now_ = 1500;
  EXPECT_EQ(pull(), (Requests{&good}));
  EXPECT_EQ(answered().size(), 3U);
  EXPECT_EQ(late.response.status.code(), Code::kDeadlineExceeded);
  EXPECT_EQ(slow.response.status.code(), Code::kUnavailable);
  EXPECT_EQ(slow.response.status.message(), "Request timeout expired");
  EXPECT_EQ(gone.response.status.code(), Code::kCancelled);
  for (const Outcome outcome : {Outcome::kDeadline, Outcome::kQueueTimeout, Outcome::kCancelled}) {
    EXPECT_EQ(queue_->statistics.of(outcome).count.load(), 1U) << static_cast<int>(outcome);
  }
  EXPECT_EQ(version_->unanswered(), 1);
  EXPECT_EQ(queue_->waiting(), 0);
}

TEST_F(ModelQueueTest, TheTimerDropsWhatIsDueAndSaysWhatIsNext) {
  make(row_signature(4));
  Request& first = submit(1, 2000).request;
  submit(1, 3000);
  EXPECT_EQ(queue_->drop_expired(1999), 2000);
  EXPECT_EQ(queue_->drop_expired(2000), 3000);
  EXPECT_EQ(answered().size(), 1U);
  EXPECT_EQ(first.response.status.code(), Code::kDeadlineExceeded);
  EXPECT_EQ(queue_->next_expiry(), 3000);
  pull();
  EXPECT_EQ(queue_->drop_expired(5000), kNever) << "pulled requests are the instance's";
}

TEST_F(ModelQueueTest, RefuseWaitingAnswersAll) {
  make(row_signature(4));
  Request& a = submit().request;
  Request& b = submit().request;
  queue_->refuse_waiting(unavailable("going"));
  EXPECT_EQ(answered().size(), 2U);
  EXPECT_EQ(a.response.status.message(), "going");
  EXPECT_EQ(b.response.status.code(), Code::kUnavailable);
  EXPECT_EQ(version_->unanswered(), 0);
  EXPECT_TRUE(pull().empty());
}

TEST_F(ModelQueueTest, TheTimerThreadAnswersWithoutAnyInstance) {
  make(row_signature(4));
  EXPECT_FALSE(timer_.started());
  now_ = monotonic_now();
  RowRequest& late = submit(1, now_ + 2 * kMillisecond);
  queue_->announce_expiry(late.request.expires);
  EXPECT_TRUE(timer_.started());
  EXPECT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_EQ(late.request.response.status.code(), Code::kDeadlineExceeded);
  EXPECT_GE(late.request.times.delivered, late.request.deadline);
  RowRequest& gone = submit();
  gone.request.cancelled = true;
  queue_->notice_cancel();
  EXPECT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_EQ(gone.request.response.status.code(), Code::kCancelled);
}

}  // namespace
}  // namespace fastserve
