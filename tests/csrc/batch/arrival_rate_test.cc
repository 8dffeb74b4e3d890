#include "batch/arrival_rate.h"

#include <gtest/gtest.h>

#include <random>

namespace fastserve {
namespace {

QueueView seen(const ArrivalRate& rate, Nanos now) {
  QueueView view;
  rate.describe(view, now);
  return view;
}

TEST(ArrivalRate, IsUnknownBeforeTheSecondArrival) {
  ArrivalRate rate;
  EXPECT_EQ(rate.rows_per_ns(1000), 0);
  rate.arrived(1, 1000);
  EXPECT_EQ(rate.rows_per_ns(2000), 0);
  EXPECT_EQ(seen(rate, 2000).soon_per_ns, 0);
  rate.arrived(1, 2000);
  EXPECT_NEAR(rate.rows_per_ns(2000), 1e-3, 1e-6);
  EXPECT_NEAR(rate.rows_per_ns_relaxed(), 1e-3, 1e-6);
}

TEST(ArrivalRate, CountsRowsAndDecaysWhenNothingComes) {
  ArrivalRate rate;
  for (Nanos at = 0; at <= 100 * kMillisecond; at += kMillisecond) rate.arrived(4, at + 1);
  const Nanos last = 100 * kMillisecond + 1;
  EXPECT_NEAR(rate.rows_per_ns(last), 4e-6, 1e-7);
  EXPECT_LT(rate.rows_per_ns(last + kSecond), 4e-7);
  EXPECT_LT(rate.rows_per_ns(last + 100 * kSecond), 1e-8);
}

TEST(ArrivalRate, StampsInAnyOrderDoNoHarm) {
  ArrivalRate rate;
  for (int i = 0; i < 100; ++i) rate.arrived(1, i % 2 == 0 ? 1000 : 500);
  EXPECT_GT(rate.rows_per_ns(1000), 0);
  EXPECT_LE(rate.rows_per_ns(1000), 1.0);
}

TEST(ArrivalRate, IndependentArrivalsAreForecastNotMuchAboveTheirRate) {
  std::mt19937_64 random(3);
  std::exponential_distribution<double> gap(1e-6);  // a millisecond
  ArrivalRate rate;
  double now = 1;
  double sum = 0;
  double most = 0;
  for (int i = 0; i < 5000; ++i) {
    rate.arrived(1, static_cast<Nanos>(now += gap(random)));
    const double soon = seen(rate, static_cast<Nanos>(now)).soon_per_ns;
    sum += soon;
    most = std::max(most, soon);
  }
  EXPECT_LT(sum / 5000, 1.1e-6);
  EXPECT_LT(most, 2e-6);
}

TEST(ArrivalRate, ABurstIsForecastWhileItLastsAndNotAfter) {
  ArrivalRate rate;
  Nanos now = 1;
  for (int burst = 0; burst < 40; ++burst) {
    for (int i = 0; i < 10; ++i) rate.arrived(1, now += 20 * kMicrosecond);
    now += 100 * kMillisecond;
  }
  rate.arrived(1, now);
  EXPECT_GT(seen(rate, now + 1).soon_per_ns, 5 * rate.rows_per_ns(now));
  EXPECT_LE(seen(rate, now + 1).soon_until, now + 200 * kMicrosecond);
  EXPECT_LT(seen(rate, now + kMillisecond).soon_per_ns, rate.rows_per_ns(now));
}

// Eight clients that ask again 0.2 ms after they are answered; a batch takes 10 ms.
TEST(ArrivalRate, ClientsThatComeBackAreExpectedAndNobodyElse) {
  ArrivalRate rate;
  Nanos now = 1;
  const auto round = [&rate, &now] {
    rate.answered(8, now += 10 * kMillisecond);
    now += 150 * kMicrosecond;
    for (int i = 0; i < 8; ++i) rate.arrived(1, now += 10 * kMicrosecond);
  };
  for (int i = 0; i < 50; ++i) round();
  QueueView view = seen(rate, now + 1);
  EXPECT_EQ(view.returning_rows, 0);
  EXPECT_LT(view.soon_per_ns, 1e-6) << "all are here";
  EXPECT_LT(view.late_per_ns, 0.1 * view.arrivals_per_ns);
  rate.answered(8, now += 10 * kMillisecond);
  view = seen(rate, now);
  EXPECT_EQ(view.returning_rows, 8);
  EXPECT_GT(view.soon_per_ns, 1.0 / (400 * kMicrosecond));
  EXPECT_GT(view.then_per_ns, 1.0 / (40 * kMicrosecond));
  EXPECT_NEAR(view.return_per_ns, view.soon_per_ns, view.soon_per_ns * 0.01);
  rate.arrived(1, now + 160 * kMicrosecond);
  EXPECT_EQ(seen(rate, now + 160 * kMicrosecond).returning_rows, 7);
}

TEST(ArrivalRate, AnswersWithoutReturnAreLearned) {
  ArrivalRate rate;
  for (Nanos at = kSecond; at < 200 * kSecond; at += kSecond) {
    rate.arrived(1, at);
    rate.answered(1, at + kMillisecond);
  }
  EXPECT_LT(seen(rate, 200 * kSecond).return_per_ns, 3e-9) << "in a second, not at once";
}

}  // namespace
}  // namespace fastserve
