#include "base/histogram.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace fastserve {
namespace {

TEST(DurationHistogram, PutsEachTimeIntoTheFirstBucketWhoseBoundItDoesNotExceed) {
  for (std::size_t i = 0; i < DurationHistogram::kBounds; ++i) {
    const Nanos bound = DurationHistogram::bound_ns(i);
    EXPECT_EQ(DurationHistogram::bucket_of(bound), i);
    EXPECT_EQ(DurationHistogram::bucket_of(bound + 1), i + 1);
  }
  EXPECT_EQ(DurationHistogram::bound_ns(0), 1000);
  EXPECT_EQ(DurationHistogram::bound_ns(24), 16'777'216'000);
}

TEST(DurationHistogram, NothingFallsOutside) {
  EXPECT_EQ(DurationHistogram::bucket_of(0), 0U);
  EXPECT_EQ(DurationHistogram::bucket_of(-5), 0U) << "two clocks that were read in the other order";
  EXPECT_EQ(DurationHistogram::bucket_of(kNever), DurationHistogram::kBuckets - 1);
}

TEST(DurationHistogram, CountsAndSums) {
  DurationHistogram h;
  h.count<Writers::kOne>(1500, 3);
  h.count<Writers::kOne>(-1);
  EXPECT_EQ(h.in_bucket(1), 3U);
  EXPECT_EQ(h.in_bucket(0), 1U);
  EXPECT_EQ(h.sum_ns(), 4500U);
}

TEST(DurationHistogram, ManyWritersLoseNothing) {
  DurationHistogram h;
  constexpr std::uint64_t kEach = 10'000;
  std::vector<std::thread> writers;
  for (int i = 0; i < 3; ++i) {
    writers.emplace_back([&h] {
      for (std::uint64_t n = 0; n < kEach; ++n) h.count<Writers::kAny>(700);
    });
  }
  std::uint64_t before = 0;
  while (before < 3 * kEach) {  // a reader meanwhile: it never sees a number fall
    const std::uint64_t now = h.in_bucket(0);
    EXPECT_GE(now, before);
    before = now;
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(h.sum_ns(), 3 * kEach * 700);
}

}  // namespace
}  // namespace fastserve
