#include "sched/statistics.h"

#include <gtest/gtest.h>

namespace fastserve {
namespace {

TEST(StageCounter, PutsEachTimeIntoTheBucketWhoseBoundItDoesNotExceed) {
  EXPECT_EQ(StageCounter::bucket_of(0), 0U);
  EXPECT_EQ(StageCounter::bucket_of(5000), 0U);
  EXPECT_EQ(StageCounter::bucket_of(5001), 1U);
  EXPECT_EQ(StageCounter::bucket_of(10 * kSecond), kStageBoundsSeconds.size() - 1);
  EXPECT_EQ(StageCounter::bucket_of(10 * kSecond + 1), kStageBoundsSeconds.size());
  for (std::size_t i = 1; i < kStageBoundsSeconds.size(); ++i) {
    EXPECT_LT(kStageBoundsSeconds[i - 1], kStageBoundsSeconds[i]);
  }
}

TEST(Statistics, ABatchCountsForEachOfItsRequests) {
  Statistics s(8);
  s.add_request(1000, 5000);
  s.add_request(3000, 7000);
  s.add_batch({5, 2, 4, 10, 20, 30, 99});
  EXPECT_EQ(s.queue.count(), 2U);
  EXPECT_EQ(s.queue.sum_ns(), 4000U);
  EXPECT_EQ(s.total.sum_ns(), 12000U);
  EXPECT_EQ(s.execute.count(), 2U);
  EXPECT_EQ(s.execute.sum_ns(), 40U);
  EXPECT_EQ(s.rows_served.load(), 4U);
  EXPECT_EQ(s.of_rows(5).count.load(), 1U);
  EXPECT_EQ(s.of_rows(5).execute_ns.load(), 20U);
  EXPECT_EQ(s.of_rows(4).count.load(), 0U);
}

TEST(Statistics, SizesAreBounded) {
  Statistics none(0);
  EXPECT_EQ(none.sizes(), 1);
  Statistics huge(std::int64_t{1} << 40);
  EXPECT_EQ(huge.sizes(), Statistics::kMaxSizes);
  huge.add_batch({std::int64_t{1} << 39, 1, 1, 0, 0, 0, 1});
  EXPECT_EQ(huge.of_rows(Statistics::kMaxSizes).count.load(), 1U);
}

}  // namespace
}  // namespace fastserve
