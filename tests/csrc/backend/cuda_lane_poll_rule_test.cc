// How the completer waits: pure.
#include <gtest/gtest.h>

#include "backend/cuda_completer.h"

namespace fastserve {
namespace {

constexpr Nanos kUs = kMicrosecond;

TEST(PollRule, SleepsWhileTheEndIsFar) {
  EXPECT_EQ(PollRule::next(0, 500 * kUs, 0), 450 * kUs);   // to be there 50 us before
  EXPECT_EQ(PollRule::next(0, 60 * kUs, 0), 20 * kUs);     // never shorter than a sleep is worth
  EXPECT_EQ(PollRule::next(0, kSecond, 0), kMillisecond);  // never long: the guess may be wrong
}

TEST(PollRule, SpinsAroundTheExpectedEnd) {
  EXPECT_EQ(PollRule::next(950 * kUs, 1000 * kUs, 0), 0);
  EXPECT_EQ(PollRule::next(1049 * kUs, 1000 * kUs, 0), 0);
  EXPECT_EQ(PollRule::next(1050 * kUs, 1000 * kUs, 0), PollRule::kYield);
  EXPECT_EQ(PollRule::next(5 * kUs, 0, 0), 0);  // nothing learned yet
}

TEST(PollRule, ANewBatchStartsTheSpinAnew) {
  EXPECT_EQ(PollRule::next(5000 * kUs, 1000 * kUs, 4970 * kUs), 0);
  EXPECT_EQ(PollRule::next(5000 * kUs, 1000 * kUs, 4900 * kUs), PollRule::kYield);
}

TEST(PollRule, NapsGrowWhenItIsLate) {
  EXPECT_EQ(PollRule::next(999 * kUs, 0, 0), PollRule::kYield);
  EXPECT_EQ(PollRule::next(1000 * kUs, 0, 0), 1000 * kUs / 32);
  EXPECT_EQ(PollRule::next(320 * kUs * 32, 0, 0), 320 * kUs);
  EXPECT_EQ(PollRule::next(kSecond, 0, 0), kMillisecond);
}

}  // namespace
}  // namespace fastserve
