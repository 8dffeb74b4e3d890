#include "local/shared_ring.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "local/sealed_memory.h"
#include "local/shared_futex.h"

namespace fastserve {
namespace {

constexpr RingLayout kLayout{8, 64};

class SharedRing : public testing::Test {
 protected:
  SealedMemory memory_ = std::move(SealedMemory::create("ring", kLayout.bytes()).value());
  RingHead& head_ = *reinterpret_cast<RingHead*>(memory_.data());
  RingProducer producer_{memory_.data(), kLayout};
  RingConsumer consumer_{memory_.data(), kLayout};
};

void put(RingProducer& producer, std::uint64_t value) {
  std::memcpy(producer.claim().data(), &value, sizeof value);
  producer.publish();
}

std::uint64_t take(RingConsumer& consumer) {
  std::uint64_t value = 0;
  std::memcpy(&value, consumer.front().data(), sizeof value);
  consumer.pop();
  return value;
}

TEST_F(SharedRing, KeepsTheOrderAndIsFullAtItsSize) {
  EXPECT_TRUE(consumer_.front().empty());
  for (std::uint64_t round = 0; round < 5; ++round) {
    for (std::uint64_t i = 0; i < 8; ++i) put(producer_, round * 8 + i);
    EXPECT_TRUE(producer_.claim().empty());
    EXPECT_EQ(producer_.room(), 0U);
    for (std::uint64_t i = 0; i < 8; ++i) EXPECT_EQ(take(consumer_), round * 8 + i);
    EXPECT_TRUE(consumer_.front().empty());
    EXPECT_EQ(producer_.room(), 8U);
  }
  EXPECT_FALSE(producer_.corrupt() || consumer_.corrupt());
}

TEST_F(SharedRing, APublisherLearnsOfASleeperOnceAndASleeperOfWhatIsThere) {
  EXPECT_TRUE(consumer_.fall_asleep(Asleep::kSocket));
  put(producer_, 1);
  EXPECT_EQ(producer_.take_sleeper(), Asleep::kSocket);
  EXPECT_EQ(producer_.take_sleeper(), Asleep::kNo);
  EXPECT_FALSE(consumer_.fall_asleep(Asleep::kFutex));
  EXPECT_EQ(producer_.take_sleeper(), Asleep::kNo);
}

TEST_F(SharedRing, CursorsThatCannotBeAreNotBelieved) {
  head_.published.store(9);
  EXPECT_TRUE(consumer_.front().empty());
  EXPECT_TRUE(consumer_.corrupt());
  head_.published.store(1);
  EXPECT_TRUE(consumer_.front().empty()) << "once is enough";
  head_.consumed.store(1);
  EXPECT_TRUE(producer_.claim().empty());
  EXPECT_TRUE(producer_.corrupt());
  EXPECT_EQ(producer_.room(), 0U);
}

TEST_F(SharedRing, NoWakeIsLostBetweenTwoThreads) {
  constexpr std::uint64_t kCount = 200'000;
  std::thread other([&] {
    for (std::uint64_t i = 0; i < kCount; ++i) {
      while (producer_.claim().empty()) std::this_thread::yield();
      put(producer_, i);
      if (producer_.take_sleeper() == Asleep::kFutex) shared_futex_wake(consumer_.asleep());
    }
  });
  for (std::uint64_t i = 0; i < kCount; ++i) {
    while (consumer_.front().empty()) {
      if (!consumer_.fall_asleep(Asleep::kFutex)) continue;
      shared_futex_wait(consumer_.asleep(), static_cast<std::uint32_t>(Asleep::kFutex), kNever);
    }
    ASSERT_EQ(take(consumer_), i);
  }
  other.join();
}

}  // namespace
}  // namespace fastserve
