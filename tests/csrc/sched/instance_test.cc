#include "sched/instance.h"

#include <gtest/gtest.h>

#include <deque>
#include <optional>
#include <thread>

#include "support/gate_backend.h"
#include "support/samples.h"

namespace fastserve {
namespace {

class InstanceTest : public ::testing::Test {
 protected:
  void make(int instances, int depth, BatchLimits limits = {}, std::vector<std::int64_t> buckets = {}) {
    backend_.emplace(depth);
    LoadSpec spec = identity_spec(4, instances);
    model_ = std::move(backend_->load(spec, [](double, std::string_view) {})).value();
    if (limits.max_queue_requests == 0) limits.max_queue_requests = 1000;
    queue_.emplace(version_, limits, timer_);
    for (int i = 0; i < instances; ++i) {
      instances_.push_back(std::make_unique<Instance>(*queue_, std::move(model_->make_instance(i)).value(),
                                                      buckets, plain_host_allocator()));
    }
  }
  void start() {
    for (const auto& instance : instances_) instance->start_thread("test");
  }
  ~InstanceTest() override {
    for (RowRequest& sample : requests_) sample.request.reset();
    version_.begin_drain();
    while (version_.handles() != 0)
      ServedVersion::idle.wait(ServedVersion::idle.ticket(), monotonic_now() + kMillisecond);
    for (const auto& instance : instances_) instance->request_stop();
    if (queue_) queue_->bell.ring_all();
    for (const auto& instance : instances_) instance->join();
    instances_.clear();
    if (queue_) queue_->leave_timer();
  }
  RowRequest& submit(std::int64_t rows = 1, bool ring = true, Nanos deadline = kNever) {
    RowRequest& sample = requests_.emplace_back(&completions_, rows, static_cast<int>(requests_.size()));
    sample.request.deadline = deadline;
    prepare(sample.request, version_.signature, monotonic_now());
    EXPECT_TRUE(version_.try_begin_request());
    EXPECT_TRUE(queue_->admit());
    sample.request.version = &version_;
    if (queue_->push(sample.request) && ring) queue_->ring();
    return sample;
  }

  ExpiryTimer timer_;
  BareVersion version_{row_signature(4)};
  CompletionQueue completions_{CompletionQueue::Wake::kFutex};
  std::deque<RowRequest> requests_;
  std::optional<GateBackend> backend_;
  std::unique_ptr<LoadedModel> model_;
  std::optional<ModelQueue> queue_;
  std::vector<std::unique_ptr<Instance>> instances_;
};

TEST_F(InstanceTest, AnswersWhatWasSubmitted) {
  make(1, 1);
  start();
  submit(1);
  submit(3);
  ASSERT_EQ(wait_for(completions_, 2).size(), 2U);
  for (const RowRequest& sample : requests_) {
    EXPECT_TRUE(sample.echoed());
    const StageTimes& t = sample.request.times;
    EXPECT_LE(t.enqueued, t.dequeued);
    EXPECT_LE(t.dequeued, t.run_start);
    EXPECT_LE(t.run_start, t.run_end);
    EXPECT_LE(t.run_end, t.delivered);
  }
}

TEST_F(InstanceTest, WhileItIsBusyRequestsBecomeABatch) {
  make(1, 1);
  backend_->open = false;
  start();
  submit(1);
  Batch& first = backend_->gate.next();
  for (int i = 0; i < 4; ++i) submit(1);
  echo(first);
  Batch& second = backend_->gate.next();
  EXPECT_EQ(second.rows(), 4);
  echo(second);
  EXPECT_EQ(wait_for(completions_, 5).size(), 5U);
  for (const RowRequest& sample : requests_) EXPECT_TRUE(sample.echoed());
}

TEST_F(InstanceTest, KeepsItsDepthAndNoMoreInFlight) {
  make(1, 3);
  backend_->open = false;
  start();
  for (int i = 0; i < 5; ++i) submit(4);
  std::vector<Batch*> batches;
  for (int i = 0; i < 3; ++i) batches.push_back(&backend_->gate.next());
  EXPECT_EQ(instances_[0]->in_flight(), 3);
  EXPECT_EQ(queue_->waiting(), 2);
  EXPECT_EQ(backend_->gate.kept(), 0U);
  std::thread vendor([&] { echo(*batches[1]); });  // a vendor's thread, out of order
  batches[1] = &backend_->gate.next();
  vendor.join();
  EXPECT_EQ(queue_->waiting(), 1);
  for (Batch* batch : batches) echo(*batch);
  echo(backend_->gate.next());
  EXPECT_EQ(wait_for(completions_, 5).size(), 5U);
}

TEST_F(InstanceTest, LeftOverWorkWakesAnotherInstance) {
  make(2, 1);
  backend_->open = false;
  start();
  submit(4, false);
  submit(4, false);
  queue_->ring();  // one ring for both
  Batch& first = backend_->gate.next();
  Batch& second = backend_->gate.next();
  EXPECT_NE(first.instance, second.instance);
  echo(second);
  echo(first);
  EXPECT_EQ(wait_for(completions_, 2).size(), 2U);
}

TEST_F(InstanceTest, PadsToTheBucket) {
  make(1, 1, {}, {2, 4});
  EXPECT_EQ(instances_[0]->run_rows(1), 2);
  EXPECT_EQ(instances_[0]->run_rows(3), 4);
  EXPECT_EQ(instances_[0]->run_rows(9), 9);
  start();
  submit(3);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_TRUE(requests_[0].echoed());
  EXPECT_EQ(backend_->ran_rows, (std::vector<std::int64_t>{4}));
}

TEST_F(InstanceTest, ACallerMayRunItsOwnBatch) {
  make(1, 1);
  start();
  submit(2, false);
  Instance& instance = *instances_[0];
  while (!instance.try_claim_idle()) std::this_thread::yield();  // the thread may be taking its first look
  EXPECT_FALSE(instance.try_claim_idle());
  instance.run_claimed();
  Response* response = completions_.take_all();
  // The instance's own first look may have pulled the request before the claim.
  if (response == nullptr) response = completions_.wait(monotonic_now() + 20 * kSecond);
  EXPECT_EQ(response, &requests_[0].request.response);
  EXPECT_TRUE(requests_[0].echoed());
  submit(1);
  EXPECT_EQ(wait_for(completions_, 1).size(), 1U) << "its thread works again";
}

TEST_F(InstanceTest, ACallerThatFindsWaitingCompanyHandsTheClockOver) {
  BatchLimits limits;
  limits.max_queue_delay_ns = 3 * kMillisecond;
  make(1, 1, limits);
  start();
  RowRequest& sample = submit(1, false);
  Instance& instance = *instances_[0];
  while (!instance.try_claim_idle()) std::this_thread::yield();
  instance.run_claimed();
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_TRUE(sample.echoed());
  EXPECT_GE(sample.request.times.dequeued - sample.request.times.enqueued, limits.max_queue_delay_ns);
}

TEST_F(InstanceTest, ADeadlineThatPassedMeanwhileShowsInTheReply) {
  make(1, 1);
  backend_->open = false;
  start();
  RowRequest& late = submit(1, true, monotonic_now() + 50 * kMillisecond);
  Batch& batch = backend_->gate.next();
  while (monotonic_now() < late.request.deadline) std::this_thread::yield();
  echo(batch);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_EQ(late.request.response.status.code(), Code::kDeadlineExceeded);
  EXPECT_TRUE(late.request.response.outputs.empty());
  EXPECT_EQ(queue_->statistics.of(Outcome::kDeadline).count.load(), 1U);
}

TEST_F(InstanceTest, AFailingBackendFailsTheRequestAndServesTheNext) {
  make(1, 1);
  start();
  for (const Fault fault : {Fault::kStartFails, Fault::kStartThrows, Fault::kNoOutput}) {
    backend_->fault = fault;
    RowRequest& bad = submit();
    ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
    EXPECT_EQ(bad.request.response.status.code(), Code::kInternal);
    backend_->fault = Fault::kNone;
    RowRequest& good = submit();
    ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
    EXPECT_TRUE(good.echoed());
  }
  while (version_.unanswered() != 0) std::this_thread::yield();  // counted right after the delivery
}

}  // namespace
}  // namespace fastserve
