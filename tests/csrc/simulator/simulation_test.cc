// The policy against the rivals in virtual time: a short form of `tools/dev simulate`, deterministic.
#include "simulator/simulation.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "simulator/arrivals.h"
#include "simulator/ours.h"
#include "simulator/rivals.h"

namespace simulator {
namespace {

constexpr std::size_t kCount = 6000;
constexpr std::size_t kLong = 30'000;

Load poisson(const Device& device, double load, std::string_view kind = "poisson",
             std::size_t count = kCount) {
  Load out;
  out.arrivals = arrivals(kind, load * device.best_rows_per_s(), count, 5, {});
  return out;
}

Load closed(int clients) {
  Load out;
  out.clients = clients;
  out.count = kCount;
  return out;
}

Machine machine_of(const Device& device, int instances = 1, int depth = 1) {
  return {instances, depth, (device.name == "mlp" ? 5 : 50) * kMicrosecond};
}

Result ours(const Device& device, const Load& load, Ours::Options options = {}, int instances = 1,
            int depth = 1) {
  const Machine machine = machine_of(device, instances, depth);
  Ours scheduler(device, machine, options);
  return simulate(device, machine, load, scheduler);
}

std::vector<Result> rivals(const Device& device, const Load& load) {
  std::vector<std::unique_ptr<Scheduler>> all;
  all.push_back(no_batching());
  for (const Nanos delay : {Nanos{0}, kMillisecond, 5 * kMillisecond}) {
    all.push_back(triton(device, delay, {}));
    all.push_back(tf_serving(device, delay, 1'000'000));
  }
  all.push_back(triton(device, kMillisecond, {4, 8}));
  all.push_back(bentoml(device, 1, 60 * kSecond));
  std::vector<Result> out;
  for (const auto& rival : all) out.push_back(simulate(device, machine_of(device), load, *rival));
  return out;
}

class OnDevice : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(All, OnDevice, testing::Values("flat", "resnet", "mlp"));

TEST_P(OnDevice, NobodyWaitsForNothingAtLowLoad) {
  const Device dev = device(GetParam());
  Load load;
  load.arrivals = arrivals("poisson", 0.02e9 / static_cast<double>(dev.mean_ns(1)), kCount, 5, {});
  const double alone_ms = static_cast<double>(dev.mean_ns(1)) / 1e6;
  for (const int instances : {1, 2}) {
    EXPECT_NEAR(ours(dev, load, {}, instances).p50_ms, alone_ms, 0.02 * alone_ms);
    EXPECT_NEAR(ours(dev, load, {}, instances, 2).p50_ms, alone_ms, 0.02 * alone_ms);
  }
}

TEST_P(OnDevice, NoRivalHasABetterP99ByMoreThanATenth) {
  const Device dev = device(GetParam());
  for (const char* kind : {"poisson", "bursty", "diurnal"}) {
    for (const double at : {0.1, 0.5, 0.8}) {
      const Load load = poisson(dev, at, kind);
      double best = 1e18;
      for (const Result& rival : rivals(dev, load)) best = std::min(best, rival.p99_ms);
      EXPECT_LE(ours(dev, load).p99_ms, 1.10 * best) << kind << " at " << at;
    }
  }
}

TEST_P(OnDevice, NoRivalServesMoreClientsThatComeBackByMoreThanATwentieth) {
  const Device dev = device(GetParam());
  for (const int clients : {1, 2, 4, 8, 16, 32}) {
    Load load = closed(clients);
    if (dev.name == "mlp") load.turnaround_ns = 40 * kMicrosecond;
    double best = 0;
    for (const Result& rival : rivals(dev, load)) best = std::max(best, rival.served_per_s);
    EXPECT_GE(ours(dev, load).served_per_s, 0.95 * best) << clients;
  }
}

TEST(Splits, ClientsThatComeBackEndUpInOneBatch) {
  const Device resnet = device("resnet");
  for (const int depth : {1, 2}) {
    const Result result = ours(resnet, closed(8), {}, 1, depth);
    EXPECT_GT(result.mean_batch, 7) << "not 1 + 7, nor 4 + 4";
    EXPECT_GT(result.served_per_s, 0.95 * resnet.best_rows_per_s());
  }
}

TEST(Splits, ASecondSlotIsFilledLate) {
  const Device flat = device("flat");
  const Load load = poisson(flat, 0.4);
  const double late = ours(flat, load, {}, 1, 2).p50_ms;
  EXPECT_LT(late, 0.75 * ours(flat, load, {.binds_late = false}, 1, 2).p50_ms);
}

struct Promise {
  const char* device;
  std::int64_t target_ms;
};

class WithTarget : public testing::TestWithParam<Promise> {
 protected:
  const Device device_ = device(GetParam().device);
  const Ours::Options options_{GetParam().target_ms * kMillisecond, 1000};
};
INSTANTIATE_TEST_SUITE_P(All, WithTarget, testing::Values(Promise{"flat", 20}, Promise{"resnet", 100}));

TEST_P(WithTarget, HoldsItAtEightyPercent) {
  const Result result = ours(device_, poisson(device_, 0.8, "poisson", kLong), options_);
  EXPECT_LE(result.p99_ms, static_cast<double>(GetParam().target_ms));
  EXPECT_LE(result.refused, 0.01);
}

TEST_P(WithTarget, OverloadCostsNeitherThroughputNorTheLatencyOfTheAdmitted) {
  const double normal_ms = ours(device_, poisson(device_, 0.8, "poisson", kLong), options_).p99_ms;
  for (const auto& [load, share] : {std::pair{2.0, 0.95}, std::pair{3.0, 0.90}, std::pair{5.0, 0.85}}) {
    const Load offered = poisson(device_, load, "poisson", kLong);
    const Result result = ours(device_, offered, options_);
    EXPECT_GE(result.served_per_s, share * device_.best_rows_per_s()) << load;
    EXPECT_LE(result.p99_ms, std::max(2 * normal_ms, 50.0)) << load;
    EXPECT_EQ(result.dropped, 0) << load;
  }
}

TEST_P(WithTarget, HighPriorityIsAdmittedInOverload) {
  Load load = poisson(device_, 3);
  load.high_priority_share = 0.1;
  EXPECT_GE(ours(device_, load, options_).high_admitted, 0.99);
}

TEST(Deadlines, WhatIsAdmittedIsMostlyInTimeAndWhatIsLateDoesNotRun) {
  const Device resnet = device("resnet");
  for (const double at : {0.8, 2.0, 5.0}) {
    Load load = poisson(resnet, at);
    load.deadline_ns = 150 * kMillisecond;
    const Result result = ours(resnet, load);
    EXPECT_LT(result.late + result.dropped, 0.05) << at;
    EXPECT_GT(result.served_per_s, (at < 1 ? 0.75 : 0.9) * resnet.best_rows_per_s()) << at;
  }
}

TEST(Simulation, IsDeterministic) {
  const Device bimodal = device("bimodal");
  const Load load = poisson(bimodal, 0.7);
  EXPECT_EQ(ours(bimodal, load).p99_ms, ours(bimodal, load).p99_ms);
}

TEST(Arrivals, HaveTheMeanRateAndAscend) {
  const std::vector<Nanos> recorded{kMillisecond, 3 * kMillisecond, 2 * kMillisecond};
  for (const char* kind : {"poisson", "bursty", "diurnal", "recorded"}) {
    const auto times = arrivals(kind, 1000, 100'000, 3, recorded);
    EXPECT_TRUE(std::ranges::is_sorted(times)) << kind;
    EXPECT_NEAR(static_cast<double>(times.back()) / 1e9, 100, 8) << kind;
  }
}

}  // namespace
}  // namespace simulator
