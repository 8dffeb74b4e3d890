#include "batch/latency_table.h"

#include <gtest/gtest.h>

#include <random>

namespace fastserve {
namespace {

double near(Nanos ns) { return static_cast<double>(ns); }

TEST(LatencyTable, KnowsNothingAtFirst) {
  const LatencyTable table;
  EXPECT_EQ(table.expected_ns(1), 0);
  EXPECT_EQ(table.high_ns(4), 0);
  EXPECT_TRUE(table.snapshot().empty());
  EXPECT_LE(sizeof(LatencyTable), 2048U);
}

TEST(LatencyTable, IsALineBetweenKnownSizesAndProportionalAbove) {
  LatencyTable table;
  table.record(8, 800'000);
  EXPECT_EQ(table.expected_ns(8), 800'000);
  EXPECT_EQ(table.expected_ns(1), 800'000) << "below the smallest: as that";
  EXPECT_NEAR(near(table.expected_ns(100)), 10'000'000, 100) << "above the largest: in proportion";
  table.record(2, 500'000);
  EXPECT_NEAR(near(table.expected_ns(4)), 600'000, 10);
  EXPECT_NEAR(near(table.expected_ns(7)), 750'000, 10);
  EXPECT_EQ(table.expected_ns(1), 500'000);
}

TEST(LatencyTable, LargeSizesShareCellsAndTheLineRunsThroughTheirAverage) {
  LatencyTable table;
  table.record(32, 3'200'000);
  table.record(64, 6'400'000);
  EXPECT_NEAR(near(table.expected_ns(48)), 4'800'000, 100);
  EXPECT_NEAR(near(table.expected_ns(31)), 3'200'000, 100) << "the same cell, nothing below";
  table.record(16, 1'600'000);
  EXPECT_NEAR(near(table.expected_ns(31)), 3'100'000, 100);
  EXPECT_NEAR(near(table.expected_ns(64)), 6'400'000, 100);
  EXPECT_GT(table.expected_ns(5'000'000'000), table.expected_ns(1'000'000)) << "no overflow";
}

TEST(LatencyTable, OneHiccupIsNoNewsAndAChangedMachineIsLearnedWithinTwentyBatches) {
  LatencyTable table;
  for (int i = 0; i < 50; ++i) table.record(4, 1'000'000);
  table.record(4, 10'000'000);
  EXPECT_LT(table.expected_ns(4), 1'250'000);
  for (int i = 0; i < 200; ++i) table.record(4, 1'000'000);
  EXPECT_NEAR(near(table.expected_ns(4)), 1e6, 4e4);
  for (int i = 0; i < 20; ++i) table.record(4, 4'000'000);
  EXPECT_NEAR(near(table.expected_ns(4)), 4e6, 6e5);
  for (int i = 0; i < 30; ++i) table.record(4, 1'000'000);
  EXPECT_NEAR(near(table.expected_ns(4)), 1e6, 2e5);
  EXPECT_LT(table.high_ns(4), 3'000'000);
}

TEST(LatencyTable, HighIsAboutTheNinetyFifthPercentile) {
  std::mt19937_64 random(7);
  std::normal_distribution<double> noise(1e6, 5e4);
  LatencyTable table;
  double above = 0;
  for (int i = 0; i < 5000; ++i) {
    const auto ns = static_cast<Nanos>(noise(random));
    if (i >= 1000 && ns > table.high_ns(2)) above += 1.0 / 4000;
    table.record(2, ns);
  }
  EXPECT_NEAR(above, 0.05, 0.02);
  EXPECT_NEAR(near(table.expected_ns(2)), 1e6, 4e4);
}

TEST(LatencyTable, TellsTwoModesFromOne) {
  std::mt19937_64 random(7);
  std::bernoulli_distribution slow(0.1);
  LatencyTable table;
  for (int i = 0; i < 3000; ++i) table.record(1, slow(random) ? 5'000'000 : 1'000'000);
  EXPECT_NEAR(near(table.expected_ns(1)), 1.4e6, 4e5) << "the mean";
  EXPECT_GT(table.high_ns(1), 3'000'000) << "one in ten is slow";
}

// What a choice between sizes needs: rare slow runs of one must not make it look dear next to the others.
TEST(LatencyTable, SlowRunsDoNotSpoilTheComparisonOfSizes) {
  std::mt19937_64 random(11);
  std::bernoulli_distribution slow(0.05);
  LatencyTable table;
  int dear = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::int64_t rows = i % 2 == 0 ? 8 : 16;
    const Nanos ns = rows == 8 ? 11'000'000 : 19'000'000;
    table.record(rows, slow(random) ? 5 * ns : ns);
    if (i > 100 && table.expected_ns(16) > 2 * table.expected_ns(8)) ++dear;
  }
  EXPECT_EQ(dear, 0);
}

TEST(LatencyTable, TheSnapshotIsAscendingWithSamples) {
  LatencyTable table;
  table.record(8, 800);
  table.record(1, 100);
  table.record(1, 100);
  const auto entries = table.snapshot();
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].rows, 1);
  EXPECT_EQ(entries[0].samples, 2U);
  EXPECT_EQ(entries[0].mean_ns, 100);
  EXPECT_GE(entries[0].high_ns, 100);
  EXPECT_EQ(entries[1].rows, 8);
}

}  // namespace
}  // namespace fastserve
