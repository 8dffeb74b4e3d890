// Loads that are given up: the version is free at once, what the load makes in the end is destroyed.
#include <gtest/gtest.h>

#include <atomic>
#include <stop_token>
#include <thread>

#include "engine/engine.h"
#include "support/gate_backend.h"
#include "support/samples.h"

namespace fastserve {
namespace {

// A load on its own thread that stands still in the backend until finish().
class SlowLoad {
 public:
  SlowLoad(Engine& engine, const LoadSpec& spec)
      : thread_([this, &engine, spec] {
          status_ = engine.load(spec, [this](double, std::string_view) {
            stands_ = true;
            while (!go_on_) std::this_thread::yield();
          });
        }) {
    while (!stands_) std::this_thread::yield();
  }
  Status finish() {
    go_on_ = true;
    thread_.join();
    return status_;
  }

 private:
  std::atomic<bool> stands_{false}, go_on_{false};
  Status status_;
  std::thread thread_;
};

class GiveUpLoadTest : public ::testing::Test {
 protected:
  GiveUpLoadTest() { engine_.backends().add(gate_); }
  static LoadSpec spec() {
    LoadSpec out = identity_spec(4, 1);
    out.backend = "gate";
    return out;
  }

  GateBackend gate_;
  Engine engine_;
};

TEST_F(GiveUpLoadTest, NothingLoads) {
  EXPECT_FALSE(engine_.give_up_load("echo", 1));
  ASSERT_TRUE(engine_.load(spec()).is_ok());
  EXPECT_FALSE(engine_.give_up_load("echo", 1));
  EXPECT_TRUE(engine_.ready("echo", "1"));
}

TEST_F(GiveUpLoadTest, ItsResultIsThrownAway) {
  SlowLoad load(engine_, spec());
  EXPECT_TRUE(engine_.give_up_load("echo", 1));
  EXPECT_FALSE(engine_.give_up_load("echo", 1));
  EXPECT_TRUE(engine_.status().empty());
  const Status ended = load.finish();
  EXPECT_EQ(ended.code(), Code::kDeadlineExceeded);
  EXPECT_EQ(ended.message(), "model 'echo' version 1: the load was given up");
  EXPECT_FALSE(engine_.ready("echo", ""));
  EXPECT_TRUE(engine_.status().empty());
}

TEST_F(GiveUpLoadTest, SoIsItsError) {
  SlowLoad load(engine_, spec());
  EXPECT_TRUE(engine_.give_up_load("echo", 1));
  gate_.fault = Fault::kStartFails;
  EXPECT_EQ(load.finish().code(), Code::kDeadlineExceeded);
  EXPECT_TRUE(engine_.status().empty());
}

TEST_F(GiveUpLoadTest, WhatServedServesOn) {
  ASSERT_TRUE(engine_.load(spec()).is_ok());
  SlowLoad load(engine_, spec());
  EXPECT_TRUE(engine_.give_up_load("echo", 1));
  EXPECT_TRUE(engine_.ready("echo", "1"));
  EXPECT_EQ(load.finish().code(), Code::kDeadlineExceeded);
  EXPECT_TRUE(engine_.ready("echo", "1"));
  EXPECT_TRUE(engine_.unload("echo", 1).is_ok());
}

TEST_F(GiveUpLoadTest, AnotherLoadMayRunBesideIt) {
  SlowLoad late(engine_, spec());
  EXPECT_EQ(engine_.load(spec()).code(), Code::kAlreadyExists);
  EXPECT_TRUE(engine_.give_up_load("echo", 1));
  SlowLoad next(engine_, spec());
  EXPECT_EQ(late.finish().code(), Code::kDeadlineExceeded);
  EXPECT_FALSE(engine_.ready("echo", "1"));
  EXPECT_TRUE(next.finish().is_ok());
  EXPECT_TRUE(engine_.ready("echo", "1"));
  EXPECT_EQ(engine_.status().size(), 1U);
}

// Loads in steps, for ever.
class SteppingBackend final : public Backend {
 public:
  std::string_view name() const override { return "stepping"; }
  Result<std::unique_ptr<LoadedModel>> load(const LoadSpec& spec, const Progress& progress) override {
    const std::stop_callback heard(spec.given_up, [this] { told = true; });
    for (;;) progress(0.5, "a step");
  }
  std::atomic<bool> told{false};
};

TEST_F(GiveUpLoadTest, ItEndsAtItsNextStep) {
  SteppingBackend stepping;
  engine_.backends().add(stepping);
  LoadSpec steps = spec();
  steps.backend = "stepping";
  std::atomic<bool> began{false};
  Status ended;
  std::thread thread([&] { ended = engine_.load(steps, [&](double, std::string_view) { began = true; }); });
  while (!began) std::this_thread::yield();
  EXPECT_FALSE(stepping.told);
  EXPECT_TRUE(engine_.give_up_load("echo", 1));
  EXPECT_TRUE(stepping.told);
  thread.join();
  EXPECT_EQ(ended.message(), "model 'echo' version 1: the load was given up");
}

TEST_F(GiveUpLoadTest, ItMayEndAfterTheEngineRefuses) {
  SlowLoad load(engine_, spec());
  EXPECT_TRUE(engine_.give_up_load("echo", 1));
  EXPECT_TRUE(engine_.drain(kNever));
  EXPECT_EQ(load.finish().code(), Code::kDeadlineExceeded);
}

}  // namespace
}  // namespace fastserve
