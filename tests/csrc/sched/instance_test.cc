#include "sched/instance.h"

#include <gtest/gtest.h>

#include <deque>
#include <optional>
#include <thread>

#include "support/gate_backend.h"
#include "support/samples.h"

namespace fastserve {
namespace {

// Cancels requests when the instance gathers its first batch: the last moment before the device.
class CancellingAllocator final : public HostAllocator {
 public:
  std::byte* allocate(std::size_t bytes) override {
    for (Request* request : std::exchange(victims, {})) request->cancelled = true;
    return plain_host_allocator().allocate(bytes);
  }
  void free(std::byte* memory, std::size_t bytes) override { plain_host_allocator().free(memory, bytes); }
  std::vector<Request*> victims;
};

class InstanceTest : public ::testing::Test {
 protected:
  void make(int instances, int depth, BatchLimits limits = {}, std::vector<std::int64_t> buckets = {},
            HostAllocator* allocator = nullptr) {
    backend_.emplace(depth);
    LoadSpec spec = identity_spec(4, instances);
    model_ = std::move(backend_->load(spec, [](double, std::string_view) {})).value();
    if (limits.max_queue_requests == 0) limits.max_queue_requests = 1000;
    queue_.emplace(version_, limits, timer_);
    for (int i = 0; i < instances; ++i) {
      InstanceSetup setup;
      setup.order = order_;
      InstanceGroup group;
      group.resources = {{"R1", false, 1}};
      if (limited_) setup.seat = std::move(limiter_.join(group, "g")).value();
      instances_.push_back(std::make_unique<Instance>(
          *queue_, std::move(model_->make_instance(i)).value(), buckets,
          allocator != nullptr ? *allocator : plain_host_allocator(), std::move(setup)));
    }
  }
  void start() {
    for (const auto& instance : instances_) EXPECT_TRUE(instance->start_thread("test").is_ok());
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
    EXPECT_TRUE(queue_->admit(sample.request).is_ok());
    sample.request.version = &version_;
    if (queue_->push(sample.request) && ring) queue_->ring();
    return sample;
  }

  CancellingAllocator allocator_;
  OrderGate gate_{&Instance::send_in_turn};
  RateLimiter limiter_{RateLimits{true, {}}};
  ExpiryTimer timer_;
  BareVersion version_{row_signature(4)};
  CompletionQueue completions_{CompletionQueue::Wake::kFutex};
  std::deque<RowRequest> requests_;
  std::optional<GateBackend> backend_;
  std::unique_ptr<LoadedModel> model_;
  std::optional<ModelQueue> queue_;
  OrderGate* order_ = nullptr;  // of the instances made from now on
  bool limited_ = false;        // likewise
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

TEST_F(InstanceTest, EveryInstanceLearnsItsOwnCosts) {
  make(2, 1);
  backend_->open = false;
  start();
  submit(4);
  submit(4);
  Batch& quick = backend_->gate.next();
  Batch& slow = backend_->gate.next();
  Instance& quick_one = *static_cast<Instance*>(quick.instance);
  Instance& slow_one = *static_cast<Instance*>(slow.instance);
  ASSERT_NE(&quick_one, &slow_one);
  echo(quick);
  const Nanos until = monotonic_now() + 5 * kMillisecond;
  while (monotonic_now() < until) std::this_thread::yield();
  const Nanos quick_cost = quick_one.cost().expected_ns(4);
  echo(slow);
  ASSERT_EQ(wait_for(completions_, 2).size(), 2U);
  EXPECT_GE(slow_one.cost().expected_ns(4), 5 * kMillisecond);
  EXPECT_EQ(quick_one.cost().expected_ns(4), quick_cost) << "the slow one is not its business";
}

TEST_F(InstanceTest, AFailedRunTeachesNothing) {
  make(1, 1);
  backend_->fault = Fault::kStartFails;
  start();
  submit(1);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_EQ(instances_[0]->cost().expected_ns(1), 0);
}

TEST_F(InstanceTest, TheBoardSaysWhoIsIdleAndWhenTheNextIsFree) {
  make(2, 1);
  const InstanceBoard& board = queue_->instances;
  EXPECT_EQ(board.idle(), 2);
  EXPECT_EQ(board.next_free(77), 77);
  for (const auto& instance : instances_) instance->cost().record(4, kSecond);
  backend_->open = false;
  start();
  submit(4);
  Batch& first = backend_->gate.next();
  while (board.idle() != 1) std::this_thread::yield();  // the claims of a look come and go
  submit(4);
  Batch& second = backend_->gate.next();
  EXPECT_EQ(board.idle(), 0);
  const Nanos now = monotonic_now();
  EXPECT_GT(board.next_free(now), now);
  EXPECT_LE(board.next_free(now), now + kSecond);
  EXPECT_EQ(board.next_free(now + 2 * kSecond), now + 2 * kSecond + 1) << "later than expected is any moment";
  echo(first);
  echo(second);
  ASSERT_EQ(wait_for(completions_, 2).size(), 2U);
}

TEST_F(InstanceTest, WhatDiesBetweenPullAndStartDoesNotRun) {
  make(1, 1, {}, {}, &allocator_);
  RowRequest& first = submit(1, false);
  RowRequest& gone = submit(2, false);
  RowRequest& last = submit(1, false);
  allocator_.victims = {&gone.request};
  start();
  ASSERT_EQ(wait_for(completions_, 3).size(), 3U);
  EXPECT_EQ(gone.request.response.status.code(), Code::kCancelled);
  EXPECT_TRUE(first.echoed());
  EXPECT_TRUE(last.echoed());
  EXPECT_EQ(backend_->ran_rows, (std::vector<std::int64_t>{2}));
  EXPECT_EQ(queue_->statistics.of(Outcome::kCancelled).count.load(), 1U);
}

TEST_F(InstanceTest, ABatchThatNobodyWaitsForDoesNotRun) {
  order_ = &gate_;
  make(1, 1, {}, {}, &allocator_);
  RowRequest& a = submit(1, false);
  RowRequest& b = submit(1, false);
  allocator_.victims = {&a.request, &b.request};
  start();
  ASSERT_EQ(wait_for(completions_, 2).size(), 2U);
  EXPECT_TRUE(backend_->ran_rows.empty());
  EXPECT_EQ(a.request.response.status.code(), Code::kCancelled);
  RowRequest& next = submit(3);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_TRUE(next.echoed()) << "and it holds up nobody";
  EXPECT_EQ(instances_[0]->in_flight(), 0);
}

TEST_F(InstanceTest, ResponsesLeaveInTheOrderInWhichTheirRequestsLeftTheQueue) {
  order_ = &gate_;
  make(2, 2);
  backend_->open = false;
  start();
  std::vector<Batch*> batches(4);
  for (int i = 0; i < 4; ++i) submit(4);
  for (int i = 0; i < 4; ++i) {
    Batch& batch = backend_->gate.next();
    batches[batch.order] = &batch;
  }
  EXPECT_NE(batches[0], nullptr);
  echo(*batches[3]);
  echo(*batches[1]);
  EXPECT_EQ(completions_.take_all(), nullptr) << "they wait for the first";
  submit(4);  // an instance that is ahead goes on
  echo(backend_->gate.next());
  batches[0]->finish(internal_error("the device is on fire"));
  std::vector<Response*> out = wait_for(completions_, 2);
  ASSERT_EQ(out.size(), 2U);
  EXPECT_EQ(out[0]->status.code(), Code::kInternal);
  echo(*batches[2]);
  for (Response* response : wait_for(completions_, 3)) out.push_back(response);
  ASSERT_EQ(out.size(), 5U);
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i]->request, &requests_[i].request) << i;
}

TEST_F(InstanceTest, AheadByMoreThanTheGateHoldsAnInstanceWaits) {
  order_ = &gate_;
  make(2, 1);
  backend_->open = false;
  start();
  submit(4);
  Batch& slow = backend_->gate.next();
  // The other one is ahead: so many batches wait at the gate, and one more that keeps its place.
  for (std::size_t i = 0; i <= OrderGate::kMostWaiting; ++i) {
    submit(4);
    echo(backend_->gate.next());
  }
  submit(4);
  const Nanos until = monotonic_now() + 20 * kMillisecond;
  while (monotonic_now() < until) std::this_thread::yield();
  EXPECT_EQ(backend_->gate.kept(), 0U) << "it must not run further ahead";
  EXPECT_EQ(queue_->waiting(), 1);
  echo(slow);
  echo(backend_->gate.next());
  EXPECT_EQ(wait_for(completions_, OrderGate::kMostWaiting + 3).size(), OrderGate::kMostWaiting + 3);
}

TEST_F(InstanceTest, ResourcesLetOneRunAtATimeAndWakeWhoWaitsForThem) {
  limited_ = true;
  make(2, 1);
  backend_->open = false;
  start();
  for (int i = 0; i < 6; ++i) submit(4);
  for (int i = 0; i < 6; ++i) {
    Batch& batch = backend_->gate.next();
    EXPECT_EQ(backend_->gate.kept(), 0U);
    EXPECT_EQ(limiter_.held_of("R1"), 1);
    EXPECT_EQ(instances_[0]->in_flight() + instances_[1]->in_flight(), 1);
    echo(batch);
  }
  EXPECT_EQ(wait_for(completions_, 6).size(), 6U);
  while (limiter_.held_of("R1") != 0) std::this_thread::yield();
  EXPECT_FALSE(instances_[0]->try_claim_idle()) << "a caller has no resources";
}

TEST_F(InstanceTest, WhatWaitsForResourcesExpiresAndIsCancelledAsAlways) {
  limited_ = true;
  make(2, 1);
  backend_->open = false;
  start();
  submit(4);
  Batch& running = backend_->gate.next();
  const Nanos deadline = monotonic_now() + 5 * kMillisecond;
  RowRequest& late = submit(4, true, deadline);
  queue_->announce_expiry(deadline);
  RowRequest& gone = submit(4);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_EQ(late.request.response.status.code(), Code::kDeadlineExceeded);
  gone.request.cancelled = true;
  queue_->notice_cancel();
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_EQ(gone.request.response.status.code(), Code::kCancelled);
  echo(running);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  RowRequest& next = submit(4);
  echo(backend_->gate.next());
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_TRUE(next.echoed());
}

}  // namespace
}  // namespace fastserve
