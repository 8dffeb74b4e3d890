#include "queue/doorbell.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace fastserve {
namespace {

TEST(Doorbell, ARingAfterTheTicketIsNotSleptOver) {
  Doorbell bell;
  const std::uint32_t ticket = bell.ticket();
  bell.ring();
  bell.wait(ticket, kNever);  // returns at once, or the test hangs
  EXPECT_EQ(bell.sleepers(), 0U);
}

TEST(Doorbell, ReturnsWhenTheTimeIsUp) {
  Doorbell bell;
  const Nanos until = monotonic_now() + 2 * kMillisecond;
  while (monotonic_now() < until) bell.wait(bell.ticket(), until);
  bell.wait(bell.ticket(), 0);   // long ago
  bell.wait(bell.ticket(), -5);  // before the clock began
}

TEST(Doorbell, RingWakesOneAndRingAllEveryone) {
  Doorbell bell;
  std::atomic<int> awake{0};
  std::vector<std::thread> sleepers;
  const std::uint32_t ticket = bell.ticket();
  for (int i = 0; i < 3; ++i) {
    sleepers.emplace_back([&] {
      bell.wait(ticket, kNever);
      ++awake;
    });
  }
  while (bell.sleepers() != 3) std::this_thread::yield();
  bell.ring_all();
  for (std::thread& sleeper : sleepers) sleeper.join();
  EXPECT_EQ(awake, 3);
}

// Two threads play ball: each waits for the other's turn. One lost wake-up and the test never ends.
TEST(Doorbell, LosesNoWakeUp) {
  constexpr int kTurns = 20'000;
  Doorbell bells[2];
  std::atomic<int> turn{0};
  const auto play = [&](int me) {
    for (int i = me; i < kTurns; i += 2) {
      for (;;) {
        const std::uint32_t ticket = bells[me].ticket();
        if (turn.load(std::memory_order_seq_cst) == i) break;
        bells[me].wait(ticket, kNever);
      }
      turn.store(i + 1, std::memory_order_seq_cst);
      bells[1 - me].ring();
    }
  };
  std::thread other([&] { play(1); });
  play(0);
  other.join();
  EXPECT_EQ(turn, kTurns);
}

}  // namespace
}  // namespace fastserve
