#include "batch/policy.h"

#include <gtest/gtest.h>

#include <map>

#include "batch/latency_table.h"

namespace fastserve {
namespace {

struct KnownCost final : CostModel {
  explicit KnownCost(Nanos ns_in) : ns(ns_in) {}
  Nanos expected_ns(std::int64_t) const override { return ns; }
  Nanos ns;
};

Decision at(const BatchLimits& limits, std::vector<std::int64_t> rows, Nanos now, Nanos deadline = kNever,
            Nanos cost = 0, bool cut = false) {
  return decide(limits, {rows, 1000, deadline, cut}, KnownCost(cost), now);
}

BatchLimits limits(std::int64_t max_rows, Nanos delay = 0, std::vector<std::int64_t> preferred = {}) {
  BatchLimits out;
  out.max_rows = max_rows;
  out.max_queue_delay_ns = delay;
  out.preferred_rows = std::move(preferred);
  return out;
}

TEST(Decide, NothingWaitsForNothing) {
  const Decision d = at(limits(8), {}, 5000);
  EXPECT_EQ(d.requests, 0U);
  EXPECT_EQ(d.wait_until, kNever);
}

TEST(Decide, WithoutDelayRunsWhatIsThere) {
  const Decision d = at(limits(8), {1, 2, 3}, 1000);
  EXPECT_EQ(d.requests, 3U);
  EXPECT_EQ(d.rows, 6);
}

TEST(Decide, NeverExceedsMaxRowsAndNeverSplits) {
  for (std::int64_t max = 1; max <= 9; ++max) {
    for (std::int64_t a = 1; a <= max; ++a) {
      for (std::int64_t b = 1; b <= max; ++b) {
        const Decision d = at(limits(max), {a, b}, 1000);
        EXPECT_EQ(d.requests, a + b <= max ? 2U : 1U);
        EXPECT_EQ(d.rows, a + b <= max ? a + b : a);
      }
    }
  }
}

TEST(Decide, WaitsForCompanyUntilTheOldestWaitedLongEnough) {
  const BatchLimits l = limits(8, 500);
  EXPECT_EQ(at(l, {1, 2}, 1000).requests, 0U);
  EXPECT_EQ(at(l, {1, 2}, 1000).wait_until, 1500);
  EXPECT_EQ(at(l, {1, 2}, 1499).requests, 0U);
  EXPECT_EQ(at(l, {1, 2}, 1500).requests, 2U);
}

TEST(Decide, AFullBatchDoesNotWait) {
  const BatchLimits l = limits(8, 500);
  EXPECT_EQ(at(l, {4, 4}, 1000).requests, 2U);
  EXPECT_EQ(at(l, {4, 3, 2}, 1000).requests, 2U) << "the third does not fit: no other may overtake it";
  EXPECT_EQ(at(l, {4, 1}, 1000, kNever, 0, true).requests, 2U) << "what follows has another shape";
}

TEST(Decide, ReachingAPreferredSizeEndsTheWait) {
  const BatchLimits l = limits(8, 500, {2, 4});
  EXPECT_EQ(at(l, {1}, 1000).requests, 0U);
  EXPECT_EQ(at(l, {1, 1}, 1000).requests, 2U);
  EXPECT_EQ(at(l, {1, 1, 1}, 1000).requests, 2U) << "the largest preferred size that was reached";
  EXPECT_EQ(at(l, {1, 1, 1, 1, 1}, 1000).requests, 4U);
  EXPECT_EQ(at(l, {3}, 1000).requests, 0U);
  EXPECT_EQ(at(l, {3}, 1500).requests, 1U) << "the delay ends the wait as well";
}

TEST(Decide, DoesNotWaitADeadlineAway) {
  const BatchLimits l = limits(8, 500);
  EXPECT_EQ(at(l, {1}, 1000, 1400, 100).wait_until, 1300);
  EXPECT_EQ(at(l, {1}, 1300, 1400, 100).requests, 1U);
  EXPECT_EQ(at(l, {1}, 1000, 5000, 100).wait_until, 1500);
}

TEST(LatencyTable, LearnsAndFallsBackOnTheNearestSize) {
  LatencyTable table;
  EXPECT_EQ(table.expected_ns(4), 0);
  table.record(8, 800);
  EXPECT_EQ(table.expected_ns(8), 800);
  EXPECT_EQ(table.expected_ns(1), 800);
  EXPECT_EQ(table.expected_ns(100), 800);
  for (int i = 0; i < 200; ++i) table.record(8, 1600);
  EXPECT_NEAR(static_cast<double>(table.expected_ns(5)), 1600, 20);
  table.record(1, 10);
  EXPECT_EQ(table.expected_ns(1), 10);
}

// Run times by rows; 0 for what is not in it.
struct TableCost final : CostModel {
  explicit TableCost(std::map<std::int64_t, Nanos> ns_in) : ns(std::move(ns_in)) {}
  Nanos expected_ns(std::int64_t rows) const override {
    const auto at = ns.lower_bound(rows);
    return at == ns.end() ? 0 : at->second;
  }
  std::map<std::int64_t, Nanos> ns;
};

const TableCost kHeavy({{1, 100}, {2, 160}, {4, 280}, {8, 520}, {16, 1040}});  // per row: 100 80 70 65 65
const TableCost kFlat({{1, 100}, {2, 100}, {4, 100}, {8, 100}, {16, 100}});

BatchLimits prepared(bool pads) {
  BatchLimits out = limits(16);
  out.prepared_rows = {1, 2, 4, 8, 16};
  out.pads = pads;
  return out;
}

Decision of(const BatchLimits& l, const CostModel& cost, std::size_t waiting, bool explore = false) {
  const std::vector<std::int64_t> rows(waiting, 1);
  QueueView view;
  view.rows = rows;
  view.explore = explore;
  return decide(l, view, cost, 5000);
}

TEST(DecideByCost, APartialBatchDoesNotPayForTheFullOne) {
  EXPECT_EQ(of(prepared(true), kHeavy, 5).rows, 4);  // 5 rows would run as 8
  EXPECT_EQ(of(prepared(true), kHeavy, 7).rows, 4);  // 7 in 520 is dearer than 4 in 280
  EXPECT_EQ(of(prepared(true), kHeavy, 3).rows, 2);
}

TEST(DecideByCost, PadsWhereThePaddingIsFree) {
  EXPECT_EQ(of(prepared(true), kFlat, 5).rows, 5);
  EXPECT_EQ(of(prepared(true), kFlat, 16).rows, 16);
}

TEST(DecideByCost, ALargerBatchThatGainsNothingIsNotWaitedFor) {
  EXPECT_EQ(of(prepared(true), kHeavy, 16).rows, 8);
  EXPECT_EQ(of(prepared(false), kHeavy, 16).rows, 8);
}

TEST(DecideByCost, RunsOnlyPreparedSizesWhenItHasTheChoice) {
  for (std::size_t waiting = 1; waiting <= 16; ++waiting) {
    const Decision d = of(prepared(false), kHeavy, waiting);
    EXPECT_TRUE(d.rows == 1 || d.rows == 2 || d.rows == 4 || d.rows == 8) << waiting << " -> " << d.rows;
    EXPECT_EQ(d.requests, static_cast<std::size_t>(d.rows));
  }
}

TEST(DecideByCost, ARequestOfAnOddSizeRunsAsItIs) {
  QueueView view;
  const std::vector<std::int64_t> rows{5};
  view.rows = rows;
  EXPECT_EQ(decide(prepared(false), view, kHeavy, 0).rows, 5);
}

TEST(DecideByCost, ExploringTakesOneSizeMore) {
  EXPECT_EQ(of(prepared(false), kHeavy, 16, true).rows, 16);
  EXPECT_EQ(of(prepared(false), kHeavy, 8, true).rows, 8);
}

TEST(DecideByCost, WithoutFiguresRunsWhatIsThere) {
  EXPECT_EQ(of(prepared(false), TableCost({}), 7).rows, 7);
}

}  // namespace
}  // namespace fastserve
