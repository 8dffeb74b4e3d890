#include "sched/instance_set.h"

#include <gtest/gtest.h>

#include <deque>
#include <optional>
#include <thread>

#include "support/gate_backend.h"
#include "support/samples.h"

namespace fastserve {
namespace {

class InstanceSetTest : public ::testing::Test {
 protected:
  void make(int instances) {
    LoadSpec spec = identity_spec(4, instances);
    model_ = std::move(backend_.load(spec, [](double, std::string_view) {})).value();
    BatchLimits limits;
    limits.max_queue_requests = 1000;
    queue_.emplace(version_, limits, timer_);
    for (int i = 0; i < instances; ++i) {
      set_.add(std::make_unique<Instance>(*queue_, std::move(model_->make_instance(i)).value(),
                                          std::vector<std::int64_t>{}, plain_host_allocator()));
    }
    set_.open(*queue_);
  }
  ~InstanceSetTest() override {
    for (RowRequest& sample : requests_) sample.request.reset();
    version_.begin_drain();
    while (version_.handles() != 0)
      ServedVersion::idle.wait(ServedVersion::idle.ticket(), monotonic_now() + kMillisecond);
    set_.stop();
    set_.clear();
    queue_->ring();  // a submitter with an old table: nothing starts any more
    EXPECT_EQ(set_.threads(), 0U);
    queue_->leave_timer();
  }
  RowRequest& submit(bool ring = true) {
    RowRequest& sample = requests_.emplace_back(&completions_, 1, static_cast<int>(requests_.size()));
    prepare(sample.request, version_.signature, monotonic_now());
    EXPECT_TRUE(version_.try_begin_request());
    EXPECT_TRUE(queue_->admit(sample.request).is_ok());
    sample.request.version = &version_;
    if (queue_->push(sample.request) && ring) queue_->ring();
    return sample;
  }

  ExpiryTimer timer_;
  GateBackend backend_;
  BareVersion version_{row_signature(4)};
  CompletionQueue completions_{CompletionQueue::Wake::kFutex};
  std::deque<RowRequest> requests_;
  std::unique_ptr<LoadedModel> model_;
  std::optional<ModelQueue> queue_;
  InstanceSet set_;
};

TEST_F(InstanceSetTest, TheFirstRingStartsAllThreads) {
  make(2);
  EXPECT_EQ(set_.threads(), 0U);
  RowRequest& sample = submit();
  EXPECT_EQ(set_.threads(), 2U);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_TRUE(sample.echoed());
  EXPECT_TRUE(queue_->instances.running.load());
}

TEST_F(InstanceSetTest, CallersThatRunTheirBatchesNeedNone) {
  make(1);
  RowRequest& sample = submit(false);
  Instance* instance = set_.claim_idle();
  ASSERT_NE(instance, nullptr);
  EXPECT_EQ(set_.claim_idle(), nullptr);
  instance->run_claimed();
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_TRUE(sample.echoed());
  EXPECT_EQ(set_.threads(), 0U);
}

TEST_F(InstanceSetTest, WhatACallerLeavesStartsThem) {
  make(1);
  for (int i = 0; i < 9; ++i) submit(false);
  set_.claim_idle()->run_claimed();
  ASSERT_EQ(wait_for(completions_, 9).size(), 9U);
  EXPECT_EQ(set_.threads(), 1U);
}

TEST_F(InstanceSetTest, WithoutAThreadWhatWaitsIsAnsweredAndTheNextRequestTriesAgain) {
  make(2);
  set_.set_stack_bytes(std::size_t{1} << 46);  // no system has that much to reserve
  RowRequest& first = submit(false);
  RowRequest& second = submit(false);
  queue_->ring();
  ASSERT_EQ(wait_for(completions_, 2).size(), 2U);
  for (const RowRequest* sample : {&first, &second}) {
    EXPECT_EQ(sample->request.response.status.code(), Code::kUnavailable);
    EXPECT_NE(sample->request.response.status.message().find("no thread for instance"), std::string::npos);
  }
  EXPECT_EQ(set_.threads(), 0U);
  EXPECT_EQ(queue_->statistics.of(Outcome::kBackend).count.load(), 2U);
  set_.set_stack_bytes(0);
  RowRequest& third = submit();
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_TRUE(third.echoed());
  EXPECT_EQ(set_.threads(), 2U);
}

TEST_F(InstanceSetTest, ManyFirstRingsStartThemOnce) {
  make(3);
  backend_.open = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back([&] { queue_->ring(); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(set_.threads(), 3U);
}

}  // namespace
}  // namespace fastserve
