#include "batch/admission.h"

#include <gtest/gtest.h>

#include <map>

#include "batch/policy.h"

namespace fastserve {
namespace {

constexpr Nanos kMs = kMillisecond;

// One row 10 ms, eight 40 ms.
AdmissionView view(std::int64_t before, Nanos free_at = 0, std::int64_t rows = 1) {
  AdmissionView out;
  out.requests_before = out.rows_before = before;
  out.rows = rows;
  out.free_at = free_at;
  out.drain = {10 * kMs, 40 * kMs, 40 * kMs, 8, 1};
  return out;
}

TEST(Admission, WithoutDeadlineAndTargetEverythingIsAdmitted) {
  EXPECT_TRUE(admission(view(1'000'000), 0, kNever, {}).admit);
}

TEST(Admission, NothingIsRefusedBeforeACostIsKnown) {
  AdmissionView unknown = view(1000);
  unknown.drain = {};
  EXPECT_TRUE(admission(unknown, 0, 5 * kMs, {}).admit);
}

TEST(Admission, ItsOwnDeadlineAtTheLimit) {
  const Nanos now = 1000 * kMs;
  // 24 before it: three batches of 40 ms and an eighth for doubt, then its own, which others will fill.
  EXPECT_TRUE(admission(view(24), now, now + 175 * kMs, {}).admit);
  const Verdict late = admission(view(24), now, now + 175 * kMs - 1, {});
  EXPECT_FALSE(late.admit);
  EXPECT_EQ(late.expected_ns, 175 * kMs);
  EXPECT_FALSE(admission(view(24, now + 5 * kMs), now, now + 175 * kMs, {}).admit) << "busy for 5 ms";
  EXPECT_TRUE(admission(view(24, now - 5 * kMs), now, now + 175 * kMs, {}).admit) << "free since 5 ms";
}

TEST(Admission, ASmallBatchIsNotTakenForAFullOne) {
  const Nanos now = 1000 * kMs;
  const Verdict verdict = admission(view(1, now + 2 * kMs), now, now + 30 * kMs, {});
  EXPECT_TRUE(verdict.admit);
  EXPECT_NEAR(static_cast<double>(verdict.expected_ns), 2.25e6 + 10e6 + 30e6 / 7, 10);
}

TEST(Admission, RowsCountNotRequests) {
  AdmissionView large = view(2);
  large.rows_before = 16;
  EXPECT_EQ(admission(large, 0, kSecond, {}).expected_ns, 130 * kMs);
  EXPECT_EQ(admission(view(0, 0, 16), 0, kSecond, {}).expected_ns, 80 * kMs) << "larger than a full batch";
}

TEST(Admission, TheTargetHoldsForThoseWithoutADeadline) {
  const LatencyTarget target{100 * kMs};  // x 1.5
  EXPECT_TRUE(admission(view(16), 0, kNever, target).admit);
  EXPECT_FALSE(admission(view(24), 0, kNever, target).admit);
  EXPECT_TRUE(admission(view(24), 0, 200 * kMs, target).admit) << "its own deadline is later";
  EXPECT_FALSE(admission(view(16), 0, 100 * kMs, target).admit) << "or earlier";
}

TEST(Admission, AnIdleInstanceRefusesOnlyWhatIsOver) {
  EXPECT_TRUE(admission(view(0), 1000, 1000 + kMs, {}).admit)
      << "the cost may be wrong, and must be learned again";
  EXPECT_FALSE(admission(view(0), 1000, 1000, {}).admit);
  EXPECT_FALSE(admission(view(0, 1000 + 5 * kMs), 1000, 1000 + kMs, {}).admit);
}

TEST(Admission, InstancesShareTheQueue) {
  AdmissionView two = view(24);
  two.drain.instances = 2;
  EXPECT_EQ(admission(two, 0, kSecond, {}).expected_ns, 107'500'000);
}

TEST(Admission, WhoWillBeOvertakenWaitsLonger) {
  AdmissionView low = view(24);
  low.overtaken = 0.5;
  EXPECT_EQ(admission(low, 0, kSecond, {}).expected_ns, 310 * kMs);
  low.overtaken = 1;
  EXPECT_EQ(admission(low, 0, 10 * kSecond, {}).expected_ns, 1390 * kMs) << "bounded";
}

TEST(Admission, TheRefusalSaysWhy) {
  AdmissionView at = view(12);
  EXPECT_EQ(refusal_text({false, 41 * kMs, 25 * kMs}, at, true),
            "would miss its deadline: expected to take 41 ms, has 25 ms (12 requests wait before it)");
  at.requests_before = 1;
  EXPECT_EQ(
      refusal_text({false, 4'140'000, 1'500'000}, at, false),
      "would miss the latency target: expected to take 4.1 ms, limit 1.5 ms (1 request waits before it)");
  EXPECT_NE(refusal_text({false, 0, -5}, at, true).find("has 0 ms"), std::string::npos);
}

TEST(ServedShares, TellWhatOvertakes) {
  ServedShares shares;
  EXPECT_EQ(shares.above(1), 0);
  for (int i = 0; i < 10'000; ++i) shares.served(i % 4 == 0 ? 0 : 7, 2);
  EXPECT_EQ(shares.above(0), 0);
  EXPECT_NEAR(shares.above(7), 0.25, 0.02);
  EXPECT_NEAR(shares.above(3), 0.25, 0.02);
  EXPECT_NEAR(shares.above(8), 1, 1e-9);
  for (int i = 0; i < 5000; ++i) shares.served(7, 2);
  EXPECT_LT(shares.above(7), 0.01) << "forgets";
}

TEST(DrainRate, IsTheSizeThatALongQueueIsServedIn) {
  struct Cost final : CostModel {
    Nanos expected_ns(std::int64_t rows) const override { return rows <= 8 ? 20 + 10 * rows : 20 * rows; }
    Nanos high_ns(std::int64_t rows) const override { return 2 * expected_ns(rows); }
  };
  BatchLimits limits;
  limits.max_rows = 16;
  limits.prepared_rows = {1, 2, 4, 8, 16};
  const DrainRate rate = drain_rate(limits, Cost(), 3);
  EXPECT_EQ(rate.full_rows, 8);
  EXPECT_EQ(rate.full_mean_ns, 100);
  EXPECT_EQ(rate.full_ns, 200);
  EXPECT_EQ(rate.alone_ns, 60);
  PublishedDrainRate published;
  EXPECT_EQ(published.load().alone_ns, 0);
  published.store(rate);
  EXPECT_EQ(published.load().full_rows, 8);
  EXPECT_EQ(published.load().instances, 3);
}

}  // namespace
}  // namespace fastserve
