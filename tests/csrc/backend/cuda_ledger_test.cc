// The memory ledger of a device on made-up devices: what is admitted at the limit and beyond it, what a refusal says, and that
// everything comes back.
#include "backend/cuda_ledger.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <thread>
#include <vector>

namespace fastserve {
namespace {

constexpr std::uint64_t kTotal = 1000;
constexpr std::uint64_t kBudget = 950;  // 5 % in reserve

class LedgerTest : public testing::Test {
 protected:
  std::uint64_t free_ = kTotal;
  DeviceLedger ledger_{{0, "GPU X", "GPU-1", kTotal}, [this] {
                         return std::optional(DeviceRoom{free_, kTotal});
                       }};
};

TEST_F(LedgerTest, AdmitsUpToTheBudget) {
  EXPECT_TRUE(ledger_.admit("a", {.weights = kBudget - 1}).is_ok());
  EXPECT_TRUE(ledger_.admit("a", {.weights = kBudget}).is_ok());
  const auto refused = ledger_.admit("a", {.weights = kBudget + 1});
  EXPECT_EQ(refused.status().code(), Code::kResourceExhausted);
  EXPECT_EQ(ledger_.row().refused, 1U);
  EXPECT_EQ(ledger_.row().held, 0U) << "the claims are gone";
}

TEST_F(LedgerTest, ARefusalSaysWhatIsWantedAndWhoHasTheRest) {
  const auto a = ledger_.admit("model 'a' version 1", {.weights = 500, .buffers = 100});
  const auto b = ledger_.admit("model 'b' version 2", {.weights = 300, .activations = 60, .graphs = 1});
  EXPECT_EQ(
      b.status().message(),
      "gpus[0] (GPU X): memory of the GPU: model 'b' version 2: got 361 bytes (weights 300, activations 60, "
      "buffers 0, graphs 1), want 350 or fewer, which is what is left of 950; held by model 'a' version 1 "
      "600");
}

TEST_F(LedgerTest, AClaimGrowsAtItsOwnExpenseAndStaysWhenItMayNot) {
  auto other = ledger_.admit("other", {.weights = 400});
  auto claim = ledger_.admit("m", {.weights = 100});
  ASSERT_TRUE(claim.is_ok());
  EXPECT_TRUE(claim->ask({.weights = 100, .activations = 450}).is_ok());  // 950 together
  EXPECT_EQ(claim->ask({.weights = 100, .activations = 451}).code(), Code::kResourceExhausted);
  EXPECT_EQ(claim->needs(), (DeviceNeeds{.weights = 100, .activations = 450}));
  claim->settle({.weights = 100, .activations = 450, .graphs = 30});  // it is there, whatever the budget says
  EXPECT_EQ(ledger_.row().held, 980U);
  EXPECT_FALSE(ledger_.row().holdings[1].loading);
  EXPECT_TRUE(ledger_.row().holdings[0].loading);
}

TEST_F(LedgerTest, WhatOthersHoldIsNotPromised) {
  free_ = 250;  // another process has the rest; 50 stay in reserve
  EXPECT_TRUE(ledger_.admit("m", {.weights = 200}).is_ok());
  const auto refused = ledger_.admit("m", {.weights = 201});
  EXPECT_EQ(refused.status().code(), Code::kResourceExhausted);
  EXPECT_NE(refused.status().message().find("other processes and caches hold 750"), std::string::npos)
      << refused.status().message();
  auto claim = ledger_.admit("m", {.weights = 100});
  free_ = 150;  // its weights are there
  EXPECT_TRUE(claim->ask({.weights = 100, .buffers = 100}).is_ok());
  EXPECT_EQ(claim->ask({.weights = 100, .buffers = 101}).code(), Code::kResourceExhausted);
}

TEST_F(LedgerTest, TheFractionBoundsWhatModelsTake) {
  ledger_.set_budget_fraction(0.5);
  EXPECT_TRUE(ledger_.admit("m", {.weights = 499}).is_ok());
  EXPECT_TRUE(ledger_.admit("m", {.weights = 500}).is_ok());
  EXPECT_FALSE(ledger_.admit("m", {.weights = 501}).is_ok());
  ledger_.set_budget_fraction(1.0);
  EXPECT_EQ(ledger_.row().budget, kBudget) << "the reserve stays";
}

TEST_F(LedgerTest, HugeNeedsDoNotWrapAround) {
  constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max() - 5;
  EXPECT_FALSE(ledger_.admit("m", {.weights = kHuge, .activations = 10}).is_ok());
  EXPECT_FALSE(ledger_.admit("m", {.activations = kHuge, .buffers = kHuge}).is_ok());
}

TEST_F(LedgerTest, ADriverThatDoesNotSayIsNotBelieved) {
  DeviceLedger silent({1, "GPU Y", "GPU-2", kTotal}, [] { return std::optional<DeviceRoom>(); });
  EXPECT_TRUE(silent.admit("m", {.weights = kBudget}).is_ok());
  EXPECT_EQ(silent.free_bytes(), std::nullopt);
  EXPECT_EQ(silent.row().free, 0U);
}

TEST_F(LedgerTest, NothingDriftsOverManyLoads) {
  std::mt19937 random(3);
  std::vector<DeviceLedger::Claim> claims;
  for (int i = 0; i < 2000; ++i) {
    if (!claims.empty() && random() % 2 == 0) {
      std::swap(claims[random() % claims.size()], claims.back());
      claims.pop_back();
      continue;
    }
    auto claim = ledger_.admit("m", {.weights = random() % 100});
    if (!claim.is_ok()) continue;
    if (random() % 2 == 0)
      static_cast<void>(claim->ask({.weights = random() % 200, .buffers = random() % 50}));
    claim->settle(claim->needs());
    claims.push_back(std::move(*claim));
    std::uint64_t sum = 0;
    for (const DeviceLedger::Claim& each : claims) sum += each.needs().sum();
    ASSERT_EQ(ledger_.row().held, sum);
    ASSERT_LE(sum, kBudget);
  }
  claims.clear();
  EXPECT_EQ(ledger_.row().held, 0U);
  EXPECT_TRUE(ledger_.row().holdings.empty());
}

TEST_F(LedgerTest, TwoLoadsNeverGetTheSameMemory) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) {
        auto claim = ledger_.admit("m", {.weights = 300});
        EXPECT_LE(ledger_.row().held, kBudget);
        if (claim.is_ok()) claim->settle({.weights = 299});
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ledger_.row().held, 0U);
}

TEST(DeviceLedgers, EachDeviceHasItsOwn) {
  DeviceLedgers ledgers;
  const auto ask = [] { return std::optional<DeviceRoom>(); };
  DeviceLedger& second = ledgers.open({1, "b", "MIG-2", 200}, ask);
  DeviceLedger& first = ledgers.open({0, "a", "GPU-1", 100}, ask);
  EXPECT_EQ(&ledgers.open({1, "again", "x", 7}, ask), &second);
  const auto claim = second.admit("m", {.weights = 100});
  EXPECT_TRUE(claim.is_ok());
  EXPECT_EQ(first.row().held, 0U);
  ledgers.set_budget_fraction(0.5);
  const auto rows = ledgers.rows();
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].uuid, "GPU-1");
  EXPECT_EQ(rows[1].uuid, "MIG-2");
  EXPECT_EQ(rows[0].budget, 50U);
  EXPECT_EQ(ledgers.find(2), nullptr);
}

}  // namespace
}  // namespace fastserve
