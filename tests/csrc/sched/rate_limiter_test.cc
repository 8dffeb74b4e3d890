#include "sched/rate_limiter.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

namespace fastserve {
namespace {

struct Sitter final : RateLimiter::Sitter {
  bool has_work() const override { return work; }
  void wake() override { ++wakes; }
  bool work = true;
  int wakes = 0;
};

InstanceGroup group(std::vector<ResourceNeed> needs, std::uint32_t priority = 0) {
  InstanceGroup out;
  out.resources = std::move(needs);
  out.rate_priority = priority;
  return out;
}

RateLimits limits(std::vector<RateLimits::Resource> resources = {}) { return {true, std::move(resources)}; }

class RateLimiterTest : public ::testing::Test {
 protected:
  using Seat = RateLimiter::Seat;
  std::unique_ptr<Seat> join(RateLimiter& limiter, std::vector<ResourceNeed> needs, Sitter& sitter,
                             std::uint32_t priority = 0) {
    auto seat = limiter.join(group(std::move(needs), priority), "instance_group[0]");
    EXPECT_TRUE(seat.is_ok()) << seat.status().message();
    seat.value()->sit(sitter);
    return std::move(seat).value();
  }
  Status refused(RateLimiter& limiter, std::vector<ResourceNeed> needs) {
    return limiter.join(group(std::move(needs)), "instance_group[3]").status();
  }
  Sitter a_, b_, c_;
};

TEST_F(RateLimiterTest, OffOrWithoutNeedsThereIsNoSeat) {
  RateLimiter off;
  EXPECT_EQ(off.join(group({{"R1", false, 9}}), "g").value(), nullptr);
  RateLimiter on(limits());
  EXPECT_EQ(on.join(group({}), "g").value(), nullptr);
}

TEST_F(RateLimiterTest, ThereIsAsMuchAsTheNeediestInstanceWants) {
  RateLimiter limiter(limits());
  const auto a = join(limiter, {{"R1", false, 4}, {"R2", false, 4}}, a_);
  {
    const auto b = join(limiter, {{"R2", false, 5}, {"R3", true, 10}}, b_);
    EXPECT_EQ(limiter.limit_of("R1"), 4);
    EXPECT_EQ(limiter.limit_of("R2"), 5);
    EXPECT_EQ(limiter.limit_of("R3"), 10);
  }
  EXPECT_EQ(limiter.limit_of("R2"), 4) << "the neediest one left";
  EXPECT_EQ(limiter.limit_of("R3"), 0);
}

TEST_F(RateLimiterTest, WhatIsSaidGoesFirstAndTheDeviceBeforeAll) {
  RateLimiter limiter(limits({{"R1", 10}, {"R2", 8, 1}, {"R2", 5, 0}, {"R2", 7}, {"R3", 2}}));
  const auto a = join(limiter, {{"R1", false, 1}, {"R2", false, 1}, {"R3", true, 1}}, a_);
  EXPECT_EQ(limiter.limit_of("R1"), 10);
  EXPECT_EQ(limiter.limit_of("R2"), 5);
  EXPECT_EQ(limiter.limit_of("R3"), 2);
}

TEST_F(RateLimiterTest, ANeedBeyondWhatThereIsIsRefusedAtTheLoad) {
  RateLimiter limiter(limits({{"R1", 10}}));
  for (const std::int64_t fits : {9, 10}) EXPECT_TRUE(refused(limiter, {{"R1", false, fits}}).is_ok());
  const Status status = refused(limiter, {{"R0", false, 1}, {"R1", false, 11}});
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "instance_group[3].rate_limiter.resources[\"R1\"].count: got 11, want at most 10 "
            "(--rate-limit-resource): the instance could never run");
  EXPECT_EQ(limiter.limit_of("R0"), 0) << "nothing of a refused group stays";
  EXPECT_EQ(refused(limiter, {{"R1", false, -1}}).code(), Code::kInvalidArgument);
}

TEST_F(RateLimiterTest, AResourceIsGlobalForAllOrForNone) {
  RateLimiter limiter(limits());
  const auto a = join(limiter, {{"R1", true, 1}}, a_);
  const Status status = refused(limiter, {{"R1", false, 1}});
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_EQ(
      status.message(),
      "instance_group[3].rate_limiter.resources[\"R1\"].global: got false, want true as other instances "
      "have it");
}

TEST_F(RateLimiterTest, AllOrNothing) {
  RateLimiter limiter(limits({{"R1", 1}, {"R2", 1}}));
  const auto a = join(limiter, {{"R1", false, 1}}, a_);
  const auto both = join(limiter, {{"R1", false, 1}, {"R2", false, 1}}, b_);
  ASSERT_TRUE(a->acquire());
  EXPECT_FALSE(both->acquire());
  EXPECT_EQ(limiter.held_of("R2"), 0) << "nothing is held by who waits";
  a->release(false);
  EXPECT_EQ(b_.wakes, 1);
  EXPECT_EQ(limiter.held_of("R2"), 1) << "set aside for it";
  EXPECT_TRUE(both->acquire());
  both->release(false);
  EXPECT_EQ(limiter.held_of("R1") + limiter.held_of("R2"), 0);
}

TEST_F(RateLimiterTest, TurnsAreByWeight) {
  RateLimiter limiter(limits());
  std::map<RateLimiter::Seat*, int> ran;
  const auto first = join(limiter, {{"R1", false, 1}}, a_, 1);
  const auto second = join(limiter, {{"R1", false, 1}}, b_, 2);
  const auto fourth = join(limiter, {{"R1", false, 1}}, c_, 4);
  const std::vector<Seat*> all{first.get(), second.get(), fourth.get()};
  const auto next = [&] {  // all want to run all the time
    Seat* runs = nullptr;
    for (Seat* seat : all) {
      if (seat->acquire()) runs = seat;
    }
    return runs;
  };
  Seat* running = next();
  for (int i = 0; i < 700; ++i) {
    ASSERT_NE(running, nullptr);
    ++ran[running];
    running->release(true);
    running = next();
  }
  EXPECT_NEAR(ran[first.get()], 400, 4);
  EXPECT_NEAR(ran[second.get()], 200, 4);
  EXPECT_NEAR(ran[fourth.get()], 100, 4);
  running->release(false);
  for (Seat* seat : all) seat->withdraw();
}

TEST_F(RateLimiterTest, WhoSatIdleSavesUpNoTurns) {
  RateLimiter limiter(limits());
  const auto busy = join(limiter, {{"R1", false, 1}}, a_);
  const auto late = join(limiter, {{"R1", false, 1}}, b_);
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(busy->acquire());
    busy->release(false);
  }
  ASSERT_TRUE(late->acquire());
  int in_a_row = 1;
  for (; in_a_row < 10; ++in_a_row) {
    EXPECT_FALSE(busy->acquire());
    late->release(false);
    if (!late->acquire()) break;
  }
  EXPECT_LE(in_a_row, 2);
}

TEST_F(RateLimiterTest, ALargeNeedIsNotStarvedBySmallOnesAndStrangersPass) {
  RateLimiter limiter(limits({{"R1", 2}, {"R9", 1}}));
  const auto small = join(limiter, {{"R1", false, 1}}, a_);
  const auto large = join(limiter, {{"R1", false, 2}}, b_);
  const auto stranger = join(limiter, {{"R9", false, 1}}, c_);
  ASSERT_TRUE(small->acquire());
  EXPECT_FALSE(large->acquire());
  EXPECT_FALSE(small->acquire()) << "one R1 is left, and kept for the large one, which has not had its turn";
  EXPECT_TRUE(stranger->acquire());
  small->release(false);
  EXPECT_TRUE(large->acquire());
  EXPECT_FALSE(small->acquire());
  large->release(false);
  EXPECT_TRUE(small->acquire());
  small->release(false);
  stranger->release(false);
}

TEST_F(RateLimiterTest, WhoHasNothingToRunIsPassedOver) {
  RateLimiter limiter(limits());
  const auto a = join(limiter, {{"R1", false, 1}}, a_);
  const auto b = join(limiter, {{"R1", false, 1}}, b_);
  const auto c = join(limiter, {{"R1", false, 1}}, c_);
  ASSERT_TRUE(a->acquire());
  EXPECT_FALSE(b->acquire());
  EXPECT_FALSE(c->acquire());
  b_.work = false;  // its requests expired
  a->release(false);
  EXPECT_EQ(b_.wakes, 1) << "it has to know that it is out of the line";
  EXPECT_TRUE(c->acquire());
  b_.work = true;
  EXPECT_FALSE(b->acquire());
  c->release(false);
  EXPECT_TRUE(b->acquire());
  b->give_up();
  EXPECT_EQ(limiter.held_of("R1"), 0);
}

TEST_F(RateLimiterTest, WhoLeavesHandsOnWhatWasSetAside) {
  RateLimiter limiter(limits({{"R1", 2}}));
  const auto a = join(limiter, {{"R1", false, 1}}, a_);
  auto large = join(limiter, {{"R1", false, 2}}, b_);
  const auto c = join(limiter, {{"R1", false, 1}}, c_);
  ASSERT_TRUE(a->acquire());
  EXPECT_FALSE(large->acquire());
  EXPECT_FALSE(c->acquire());
  large.reset();  // what was kept for it is free
  EXPECT_EQ(c_.wakes, 1);
  EXPECT_TRUE(c->acquire());
  EXPECT_FALSE(a->acquire()) << "both are out";
  c->release(false);
  EXPECT_EQ(limiter.held_of("R1"), 2) << "one runs, one is set aside for a";
  a->withdraw();
  EXPECT_EQ(limiter.held_of("R1"), 1);
  a->release(false);
}

}  // namespace
}  // namespace fastserve
