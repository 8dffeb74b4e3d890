#include "frontend/pass_pacing.h"

#include <gtest/gtest.h>

namespace fastserve {
namespace {

constexpr Nanos kWaiting = PassPacing::kAtOnce - 1;  // the poller had something at once
constexpr Nanos kBlocked = PassPacing::kAtOnce;
constexpr std::uint64_t kWorth = PassPacing::kWorth;

// One pass that read `requests`; whether a pause came first.
bool pass(PassPacing& pacing, Nanos waited, std::uint64_t requests) {
  const bool paused = pacing.pause_first(waited) != 0;
  pacing.passed(requests);
  return paused;
}

TEST(PassPacing, OneCallInFlightNeverMeetsAPause) {
  PassPacing pacing;
  for (int i = 0; i < 1000; ++i) EXPECT_FALSE(pass(pacing, kBlocked, 1));
}

TEST(PassPacing, NothingBeforeTheFirstRequestsAndAfterPassesWithoutAny) {
  PassPacing pacing;
  EXPECT_FALSE(pass(pacing, kWaiting, 0));  // a connection opens, a large tensor comes in pieces
  EXPECT_FALSE(pass(pacing, kWaiting, 0));
  EXPECT_FALSE(pass(pacing, kWaiting, 1));
  EXPECT_TRUE(pass(pacing, kWaiting, 1));
}

TEST(PassPacing, DenseTrafficMeetsOneBeforeEachPass) {
  PassPacing pacing;
  pass(pacing, kBlocked, 1);
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(pass(pacing, kWaiting, kWorth));
}

TEST(PassPacing, APauseThatBroughtManyIsFollowedByALongerOne) {
  PassPacing pacing;
  pass(pacing, kBlocked, 1);
  EXPECT_EQ(pacing.pause_first(kWaiting), PassPacing::kPause);
  pacing.passed(PassPacing::kMany - 1);
  EXPECT_EQ(pacing.pause_first(kWaiting), PassPacing::kPause);
  pacing.passed(PassPacing::kMany);
  EXPECT_EQ(pacing.pause_first(kWaiting), PassPacing::kLongPause);
  pacing.passed(PassPacing::kVeryMany);
  EXPECT_EQ(pacing.pause_first(kWaiting), PassPacing::kLongestPause);
  pacing.passed(PassPacing::kMany);
  EXPECT_EQ(pacing.pause_first(kWaiting), PassPacing::kLongPause);
  pacing.passed(PassPacing::kMany);
  EXPECT_EQ(pacing.pause_first(kBlocked), 0) << "they had nothing more to say";
}

TEST(PassPacing, LargePassesNeedNone) {
  PassPacing pacing;
  pass(pacing, kBlocked, PassPacing::kEnough);
  EXPECT_FALSE(pass(pacing, kWaiting, PassPacing::kEnough - 1));
  EXPECT_TRUE(pass(pacing, kWaiting, PassPacing::kEnough));
  EXPECT_FALSE(pass(pacing, kWaiting, 1));
}

// Pauses among `passes` passes, each of which finds input waiting and reads `requests`.
int pauses(PassPacing& pacing, int passes, Nanos waited, std::uint64_t requests) {
  int count = 0;
  for (int i = 0; i < passes; ++i) {
    const bool paused = pass(pacing, kWaiting, requests);
    count += paused ? 1 : 0;
    if (paused) pass(pacing, waited, requests);
  }
  return count;
}

TEST(PassPacing, PausesThatBringTooLittleBecomeRare) {
  PassPacing pacing;
  pass(pacing, kBlocked, 1);
  EXPECT_EQ(pauses(pacing, 1 << 20, kWaiting, kWorth - 1), 10 + (1 << 20) / PassPacing::kMostLetGo - 1);
}

TEST(PassPacing, SoDoPausesThatEverybodyWaitedFor) {
  PassPacing pacing;
  pass(pacing, kBlocked, 4);
  const int count = pauses(pacing, 1 << 20, kBlocked, 4);
  EXPECT_LE(count, 10 + (1 << 20) / PassPacing::kMostLetGo);
  EXPECT_GE(count, (1 << 20) / PassPacing::kMostLetGo - 10);
}

TEST(PassPacing, OneHitMakesUpForAllMisses) {
  PassPacing pacing;
  pass(pacing, kBlocked, 1);
  pauses(pacing, 1 << 20, kBlocked, 1);
  int until_next = 1;
  while (!pass(pacing, kWaiting, kWorth)) ++until_next;
  EXPECT_LE(until_next, static_cast<int>(PassPacing::kMostLetGo));
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(pass(pacing, kWaiting, kWorth));
}

}  // namespace
}  // namespace fastserve
