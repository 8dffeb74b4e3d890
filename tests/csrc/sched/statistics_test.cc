#include "sched/statistics.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace fastserve {
namespace {

std::uint64_t requests_of(const DurationHistogram& h) {
  std::uint64_t out = 0;
  for (std::size_t i = 0; i < DurationHistogram::kBuckets; ++i) out += h.in_bucket(i);
  return out;
}

std::uint64_t batches_of(const SizeCounter* size) { return size == nullptr ? 0 : size->count.load(); }

TEST(Statistics, ABatchCountsForEachOfItsRequests) {
  Statistics s(8);
  StatisticsShard& shard = s.add_shard();
  {
    BatchCount count(shard, s.common());
    count.add_request(1000, 5000);
    count.add_request(3000, 7000);
    count.add_batch({5, 2, 4, 10, 20, 30, 99});
  }
  EXPECT_EQ(requests_of(shard.queue), 2U);
  EXPECT_EQ(shard.queue.sum_ns(), 4000U);
  EXPECT_EQ(shard.total.sum_ns(), 12000U);
  EXPECT_EQ(requests_of(shard.execute), 2U);
  EXPECT_EQ(shard.execute.sum_ns(), 40U);
  EXPECT_EQ(shard.scatter_ns.load(), 60U);
  EXPECT_EQ(shard.rows_served.load(), 4U);
  EXPECT_EQ(shard.last_run.load(), 99);
  EXPECT_EQ(batches_of(shard.of_rows(5)), 1U);
  EXPECT_EQ(shard.of_rows(5)->execute_ns.load(), 20U);
  EXPECT_EQ(batches_of(shard.of_rows(4)), 0U);
}

TEST(Statistics, ABatchThatServedNobodyIsNoExecution) {
  Statistics s(8);
  BatchCount(s.add_shard(), s.common()).add_batch({5, 0, 0, 10, 20, 30, 99});
  EXPECT_EQ(batches_of(s.shards()[1]->of_rows(5)), 0U);
  EXPECT_EQ(s.shards()[1]->last_run.load(), 0);
}

TEST(Statistics, WhoFindsTheShardTakenCountsInTheCommonOne) {
  Statistics s(8);
  StatisticsShard& shard = s.add_shard();
  {
    BatchCount first(shard, s.common());
    BatchCount second(shard, s.common());
    second.add_request(1000, 1000);
    second.add_batch({1, 1, 1, 1, 1, 1, 1});
    EXPECT_EQ(requests_of(shard.queue), 0U);
    EXPECT_EQ(requests_of(s.common().queue), 1U);
    EXPECT_EQ(batches_of(s.common().of_rows(1)), 1U);
  }
  BatchCount(shard, s.common()).add_request(1, 1);
  EXPECT_EQ(requests_of(shard.queue), 1U) << "it was given back";
}

TEST(Statistics, FinishersOfOneInstanceLoseNothing) {
  Statistics s(8);
  StatisticsShard& shard = s.add_shard();
  constexpr int kEach = 20'000;
  std::vector<std::thread> finishers;
  for (int i = 0; i < 3; ++i) {
    finishers.emplace_back([&] {
      for (int n = 0; n < kEach; ++n) {
        BatchCount count(shard, s.common());
        count.add_request(n, n);
        count.add_batch({2, 1, 2, n, n, n, n});
      }
    });
  }
  for (std::thread& finisher : finishers) finisher.join();
  std::uint64_t requests = 0, batches = 0, rows = 0;
  for (const auto& each : s.shards()) {
    requests += requests_of(each->total);
    batches += batches_of(each->of_rows(2));
    rows += each->rows_served.load();
  }
  EXPECT_EQ(requests, 3U * kEach);
  EXPECT_EQ(batches, 3U * kEach);
  EXPECT_EQ(rows, 6U * kEach);
}

TEST(Statistics, OutcomesKeepCountAndTime) {
  Statistics s(1);
  s.add(Outcome::kDeadline, 70);
  s.add(Outcome::kDeadline, -1);
  EXPECT_EQ(s.of(Outcome::kDeadline).count.load(), 2U);
  EXPECT_EQ(s.of(Outcome::kDeadline).ns.load(), 70U);
  EXPECT_EQ(s.of(Outcome::kBackend).count.load(), 0U);
}

TEST(Statistics, SizesAreBounded) {
  EXPECT_EQ(Statistics(0).sizes(), 1);
  Statistics huge(std::int64_t{1} << 40);
  EXPECT_EQ(huge.sizes(), Statistics::kMaxSizes);
  BatchCount(huge.common(), huge.common()).add_batch({std::int64_t{1} << 39, 1, 1, 0, 0, 0, 1});
  EXPECT_EQ(batches_of(huge.common().of_rows(Statistics::kMaxSizes)), 1U);
}

TEST(Statistics, SizesTakeMemoryWhenTheyAreCounted) {
  Statistics s(4000);
  StatisticsShard& shard = s.add_shard();
  EXPECT_LT(sizeof(StatisticsShard), 2048U);
  for (const std::int64_t rows : {1, 2, 3, 4, 63, 64, 4000}) {
    EXPECT_EQ(batches_of(shard.of_rows(rows)), 0U) << rows;
    BatchCount(shard, s.common()).add_batch({rows, 1, 1, 0, 0, 0, 1});
    EXPECT_EQ(batches_of(shard.of_rows(rows)), 1U) << rows;
  }
  EXPECT_EQ(shard.of_rows(300), nullptr) << "of its piece nothing was counted";
  EXPECT_EQ(batches_of(shard.of_rows(5)), 0U);
}

}  // namespace
}  // namespace fastserve
