#include "sched/order_gate.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "batch/arena.h"
#include "support/samples.h"

namespace fastserve {
namespace {

std::vector<std::uint64_t>* g_sent = nullptr;  // by the one test that runs

class OrderGateTest : public ::testing::Test {
 protected:
  OrderGateTest() { g_sent = &sent_; }
  ~OrderGateTest() override { arena_->close(); }
  void pass(std::uint64_t order, bool keeps_place = false) {
    Batch* batch = acquire(order);
    gate_.pass(order, BatchRef(batch), keeps_place);
  }
  Batch* acquire(std::uint64_t order) {
    Batch* batch = arena_->acquire();
    batch->order = order;
    return batch;
  }

  std::vector<std::uint64_t> sent_;
  const Signature signature_ = row_signature(4);
  BatchArena* const arena_ = new BatchArena(signature_, plain_host_allocator(), 4);
  OrderGate gate_{[](BatchRef batch, bool kept_place) {
    g_sent->push_back(batch.get()->order + (kept_place ? 1000 : 0));
  }};
};

using Orders = std::vector<std::uint64_t>;

TEST_F(OrderGateTest, SendsInOrderWhateverFinishesFirst) {
  pass(0);
  EXPECT_EQ(sent_, (Orders{0}));
  pass(3);
  pass(2, true);
  EXPECT_EQ(sent_, (Orders{0}));
  EXPECT_EQ(gate_.waiting(), 2U);
  pass(1);
  EXPECT_EQ(sent_, (Orders{0, 1, 1002, 3}));
  EXPECT_EQ(gate_.waiting(), 0U);
  EXPECT_EQ(arena_->out(), 0) << "every batch went back";
}

TEST_F(OrderGateTest, IsCrowdedWhenSoManyWait) {
  const std::uint64_t most = OrderGate::kMostWaiting;
  for (std::uint64_t order = 1; order < most; ++order) pass(order);
  EXPECT_FALSE(gate_.crowded()) << most - 1;
  pass(most);
  EXPECT_TRUE(gate_.crowded()) << most;
  pass(most + 1);
  EXPECT_TRUE(gate_.crowded()) << most + 1;
  pass(0);
  EXPECT_FALSE(gate_.crowded());
  EXPECT_EQ(sent_.size(), most + 2);
}

TEST_F(OrderGateTest, ManyThreadsOneOrder) {
  constexpr std::uint64_t kThreads = 4;
  constexpr std::uint64_t kEach = 2000;
  std::vector<Batch*> batches;
  for (std::uint64_t order = 0; order < kThreads * kEach; ++order) batches.push_back(acquire(order));
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint64_t i = 0; i < kEach; ++i) {
        const std::uint64_t order = i * kThreads + t;
        gate_.pass(order, BatchRef(batches[order]), false);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(sent_.size(), kThreads * kEach);
  for (std::uint64_t i = 0; i < sent_.size(); ++i) ASSERT_EQ(sent_[i], i);
}

}  // namespace
}  // namespace fastserve
