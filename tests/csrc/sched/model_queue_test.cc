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
  void make(Signature signature, BatchLimits limits = {}) {
    version_.emplace(std::move(signature));
    if (limits.max_queue_requests == 0) limits.max_queue_requests = 100;
    queue_.emplace(*version_, limits, timer_);
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
    prepare(sample.request, version_->signature, now_);
    EXPECT_TRUE(version_->try_begin_request());
    EXPECT_TRUE(queue_->admit());
    sample.request.version = &*version_;
    queue_->push(sample.request);
    return sample;
  }
  std::vector<Request*> pull(ModelQueue::Pull* out = nullptr) {
    Batch* batch = arena_->acquire();
    const ModelQueue::Pull pulled = queue_->pull(*batch, now_);
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
  EXPECT_FALSE(queue_->admit());
  EXPECT_FALSE(queue_->admit());
  EXPECT_EQ(queue_->statistics.of(Outcome::kQueueFull).count.load(), 2U);
  EXPECT_EQ(queue_->waiting(), 2);
  pull();
  EXPECT_TRUE(queue_->admit());
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
