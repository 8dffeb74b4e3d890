#include "batch/policy.h"

#include <gtest/gtest.h>

#include <iterator>
#include <map>

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

// Run times by rows, on lines between what is in it; 0 above.
struct TableCost final : CostModel {
  explicit TableCost(std::map<std::int64_t, Nanos> ns_in) : ns(std::move(ns_in)) {}
  Nanos expected_ns(std::int64_t rows) const override {
    const auto at = ns.lower_bound(rows);
    if (at == ns.end()) return 0;
    if (at->first == rows || at == ns.begin()) return at->second;
    const auto below = std::prev(at);
    return below->second + (at->second - below->second) * (rows - below->first) / (at->first - below->first);
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

Decision of(const BatchLimits& l, const CostModel& cost, std::size_t waiting, int explore = 0) {
  const std::vector<std::int64_t> rows(waiting, 1);
  QueueView view;
  view.rows = rows;
  view.explore = explore;
  return decide(l, view, cost, 5000);
}

TEST(DecideByCost, APartialBatchDoesNotPayForTheFullOne) {
  EXPECT_EQ(of(prepared(true), kHeavy, 5).rows, 4);  // 5 rows would run as 8
  EXPECT_EQ(of(prepared(true), kHeavy, 6).rows, 4);  // 4 in 280 and 2 in 160 end before 6 in 520
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

TEST(DecideByCost, ExploringTakesOneSizeMoreOrLess) {
  EXPECT_EQ(of(prepared(false), kHeavy, 16, +1).rows, 16);
  EXPECT_EQ(of(prepared(false), kHeavy, 16, -1).rows, 4);
  EXPECT_EQ(of(prepared(false), kHeavy, 1, -1).rows, 1);
  EXPECT_EQ(of(prepared(false), kFlat, 16, -1).rows, 16)
      << "half of them for the same time: known to be worse";
  EXPECT_EQ(of(prepared(false), kHeavy, 8, +1).rows, 8);
}

TEST(DecideByCost, WithoutFiguresRunsWhatIsThere) {
  EXPECT_EQ(of(prepared(false), TableCost({}), 7).rows, 7);
}

TEST(DecideByCost, RequestsThatDoNotAddUpToPreparedSizesStillShareABatch) {
  QueueView view;
  const std::vector<std::int64_t> rows{3, 3, 3};
  view.rows = rows;
  EXPECT_EQ(decide(prepared(false), view, kFlat, 0).rows, 9);
}

TEST(DecideByCost, NothingIsLeftBehindThatWouldEndLater) {
  const TableCost steep({{1, 100}, {2, 140}, {4, 220}, {8, 370}, {16, 640}});
  EXPECT_EQ(of(prepared(true), steep, 13).rows, 13) << "8 and then 5 end at 740, all at 640";
  EXPECT_EQ(of(prepared(true), steep, 5).rows, 4) << "4 and then 1 end at 320, all at 370";
}

TEST(BestRows, TheSmallestThatIsAsGoodAsAny) {
  EXPECT_EQ(best_rows(prepared(true), kHeavy), 8);
  EXPECT_EQ(best_rows(prepared(true), kFlat), 16);
  EXPECT_EQ(best_rows(prepared(true), TableCost({})), 16) << "nothing is known";
  EXPECT_EQ(best_rows(limits(32), kHeavy), 32) << "nothing is prepared";
}

// --- why

TEST(Reasons, AreTold) {
  EXPECT_EQ(at(limits(8), {}, 1000).reason, Reason::kNothingWaits);
  EXPECT_EQ(at(limits(8), {1}, 1000).reason, Reason::kNoGain);
  EXPECT_EQ(at(limits(2), {1, 1}, 1000).reason, Reason::kFull);
  EXPECT_EQ(at(limits(8, 500), {1}, 1000).reason, Reason::kCompany);
  EXPECT_EQ(at(limits(8, 500), {1}, 1500).reason, Reason::kDelayPassed);
  EXPECT_EQ(at(limits(8, 500), {1}, 1300, 1400, 100).reason, Reason::kDeadline);
  EXPECT_EQ(at(limits(8, 500, {2}), {1, 1}, 1000).reason, Reason::kPreferred);
  EXPECT_EQ(of(prepared(true), kHeavy, 5).reason, Reason::kCheapest);
  EXPECT_EQ(of(prepared(true), kHeavy, 16, +1).reason, Reason::kExplore);
  for (std::size_t i = 0; i < kReasons; ++i) EXPECT_FALSE(reason_name(static_cast<Reason>(i)).empty());
}

TEST(Preferred, WithoutDelayAsMuchAsFormsOneElseAll) {
  const BatchLimits l = limits(8, 0, {4});
  EXPECT_EQ(at(l, {1, 1, 1, 1, 1, 1}, 1000).rows, 4);
  EXPECT_EQ(at(l, {1, 1, 1}, 1000).rows, 3);
}

// --- waiting for company, without a fixed delay. Times in ns; kFlat: any batch takes 100.

struct Waiting {
  std::size_t waiting = 1;
  QueueView view;
  BatchLimits limits = [] {
    BatchLimits out = prepared(true);
    out.shortest_worth_waiting_ns = 100;
    return out;
  }();

  Decision on(const CostModel& cost, Nanos now = 10'000) {
    rows_.assign(waiting, 1);
    view.rows = rows_;
    if (view.oldest_enqueued == 0) view.oldest_enqueued = now;
    return decide(limits, view, cost, now);
  }

 private:
  std::vector<std::int64_t> rows_;
};

// The next arrival is expected in 10, and three that were answered have not come back.
Waiting clients_come_back() {
  Waiting out;
  out.view.arrivals_per_ns = 0.04;
  out.view.soon_per_ns = 0.1;
  out.view.then_per_ns = 0.1;
  out.view.soon_until = 10'025;
  out.view.returning_rows = 3;
  return out;
}

TEST(Company, IsWaitedForWhenItIsNearAndARunIsSaved) {
  Waiting w = clients_come_back();
  const Decision d = w.on(kFlat);
  EXPECT_EQ(d.requests, 0U);
  EXPECT_EQ(d.reason, Reason::kCompany);
  EXPECT_EQ(d.wait_until, 10'025);
}

TEST(Company, IsNotWaitedForWhereItWouldBeJustAsDear) {
  Waiting w = clients_come_back();
  const TableCost linear({{1, 100}, {2, 200}, {4, 400}, {8, 800}, {16, 1600}});
  EXPECT_EQ(w.on(linear).requests, 1U);
  EXPECT_EQ(w.on(linear).reason, Reason::kNoGain);
}

TEST(Company, IsNotWaitedForWhenNoneIsExpectedInTime) {
  Waiting w = clients_come_back();
  w.view.soon_per_ns = 1.0 / 150;
  w.view.then_per_ns = 0;
  EXPECT_EQ(w.on(kFlat).requests, 1U);
  w.view.soon_per_ns = 0;
  EXPECT_EQ(w.on(kFlat).requests, 1U) << "unknown";
}

TEST(Company, IndependentArrivalsAreNeverWaitedFor) {
  for (const double rate : {0.0001, 0.001, 0.005, 0.01, 0.02, 0.1}) {
    for (std::size_t n = 1; n < 16; ++n) {
      Waiting w;
      w.waiting = n;
      w.view.arrivals_per_ns = w.view.late_per_ns = w.view.soon_per_ns = w.view.then_per_ns = rate;
      w.view.soon_until = 20'000;
      EXPECT_GT(w.on(kFlat).requests, 0U) << rate << " " << n;
      EXPECT_GT(w.on(kHeavy).requests, 0U) << rate << " " << n;
    }
  }
}

TEST(Company, IsNotWorthASleepWhereARunIsShort) {
  Waiting w = clients_come_back();
  EXPECT_EQ(w.on(kFlat).requests, 0U);
  w.limits.shortest_worth_waiting_ns = 101;
  EXPECT_EQ(w.on(kFlat).requests, 1U);
}

TEST(Company, NeverWhileAnotherInstanceIsIdle) {
  Waiting w = clients_come_back();
  w.view.instances = 2;
  w.view.idle_instances = 2;
  EXPECT_EQ(w.on(kFlat).requests, 1U);
}

TEST(Company, NeverWhenItCannotJoinOrNothingIsKnown) {
  Waiting w = clients_come_back();
  w.view.cut = true;
  EXPECT_EQ(w.on(kFlat).requests, 1U);
  w.view.cut = false;
  EXPECT_EQ(w.on(TableCost({})).requests, 1U);
}

TEST(Company, NeverBeyondADeadlineTheTargetOrTheDelay) {
  Waiting w = clients_come_back();
  w.view.earliest_deadline = 10'110;
  EXPECT_EQ(w.on(kFlat).wait_until, 10'010) << "it takes 100";
  w.view.earliest_deadline = 10'100;
  EXPECT_EQ(w.on(kFlat).requests, 1U);
  EXPECT_EQ(w.on(kFlat).reason, Reason::kDeadline);
  w.view.earliest_deadline = kNever;
  w.limits.target_p99_ns = 112;
  EXPECT_EQ(w.on(kFlat).wait_until, 10'012);
  w.limits.max_queue_delay_ns = 5;
  EXPECT_EQ(w.on(kFlat).wait_until, 10'005);
  w.view.oldest_enqueued = 9'995;
  EXPECT_EQ(w.on(kFlat).requests, 1U);
  EXPECT_EQ(w.on(kFlat).reason, Reason::kDelayPassed);
}

TEST(Behind, ABatchThatRunsIsNotRushedUnlessThisOneCannotGrowCheaper) {
  constexpr Nanos kMs = kMillisecond;
  const TableCost cost({{1, 10 * kMs}, {2, 16 * kMs}, {4, 28 * kMs}, {8, 52 * kMs}, {16, 104 * kMs}});
  Waiting w;
  w.waiting = 4;
  const Nanos now = 1000 * kMs;
  w.view.starts_at = now + 20 * kMs;
  const Decision d = w.on(cost, now);
  EXPECT_EQ(d.requests, 0U);
  EXPECT_LT(d.wait_until, w.view.starts_at);
  EXPECT_GT(d.wait_until, w.view.starts_at - 2 * kMs);
  EXPECT_EQ(w.on(cost, d.wait_until).requests, 4U) << "in time, so that the device does not idle";
  w.waiting = 8;
  EXPECT_EQ(w.on(cost, now).requests, 8U) << "a larger one is not cheaper";
  w.view.idle_instances = 2;
  EXPECT_EQ(w.on(cost, now).requests, 0U) << "the other starts it sooner";
}

TEST(Sharing, WhatTwoInstancesEndSoonerIsNotGivenToOne) {
  Waiting w;
  w.waiting = 2;
  w.view.instances = 2;
  w.view.idle_instances = 2;
  EXPECT_EQ(w.on(kHeavy).requests, 1U) << "100 and 100 instead of 160";
  EXPECT_EQ(w.on(kFlat).requests, 2U);
  w.view.idle_instances = 1;
  w.view.next_free_at = 10'020;
  EXPECT_EQ(w.on(kHeavy).requests, 1U) << "100 and 120";
  w.view.next_free_at = 10'060;
  EXPECT_EQ(w.on(kHeavy).requests, 2U);
  w.view.next_free_at = 10'020;
  w.view.arrivals_per_ns = 0.02;
  EXPECT_EQ(w.on(kHeavy).requests, 2U) << "one by one would not keep up";
}

TEST(Starts, AreKeptApartWhereAllInstancesAreNeeded) {
  Waiting w;
  w.waiting = 2;
  w.view.instances = 2;
  w.view.arrivals_per_ns = 0.05;
  w.view.next_free_at = 10'090;  // the other one just started
  const Decision d = w.on(kFlat);
  EXPECT_EQ(d.requests, 0U);
  EXPECT_EQ(d.wait_until, 10'040);
  EXPECT_EQ(w.on(kFlat, 10'040).requests, 2U);
  w.view.arrivals_per_ns = 0.001;
  EXPECT_EQ(w.on(kFlat).requests, 2U) << "few come: an instance will be idle";
}

TEST(Target, ASmallerBatchForThoseInFrontIfItKeepsUp) {
  Waiting w;
  w.waiting = 8;
  w.limits.target_p99_ns = 1000;
  w.view.arrivals_per_ns = 0.005;
  w.view.oldest_enqueued = 9'300;  // due at 10'300: 8 rows (520) are late, 4 (280) are not
  EXPECT_EQ(w.on(kHeavy).rows, 4);
  EXPECT_EQ(w.on(kHeavy).reason, Reason::kDeadline);
  w.view.arrivals_per_ns = 0.015;
  EXPECT_EQ(w.on(kHeavy).rows, 8) << "4 at a time would not keep up";
  w.view.arrivals_per_ns = 0.005;
  w.view.oldest_enqueued = 8'000;
  EXPECT_EQ(w.on(kHeavy).rows, 8) << "late whatever runs";
}

}  // namespace
}  // namespace fastserve
