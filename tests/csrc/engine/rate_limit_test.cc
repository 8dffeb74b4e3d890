// The rate limiter across models, through the engine.
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <thread>

#include "engine/engine_impl.h"
#include "support/gate_backend.h"
#include "support/samples.h"

namespace fastserve {
namespace {

class RateLimitTest : public ::testing::Test {
 protected:
  RateLimitTest() { engine_.backends().add(gate_); }
  ~RateLimitTest() override {
    for (RowRequest& sample : samples_) sample.request.reset();
  }
  static EngineOptions options() {
    EngineOptions out;
    out.rate_limits = {true, {{"slots", 1}}};
    return out;
  }
  static LoadSpec spec(std::string model, std::uint32_t priority, std::int64_t count = 1) {
    LoadSpec out = identity_spec(4, 1);
    out.model = std::move(model);
    out.backend = "gate";
    out.groups.resize(1);
    out.groups[0].resources = {{"slots", false, count}};
    out.groups[0].rate_priority = priority;
    return out;
  }
  RowRequest& submit(const std::string& model) {
    RowRequest& out = samples_.emplace_back(&completions_, 4, static_cast<std::int32_t>(samples_.size()));
    out.request.model_name = names_[model] = model;
    EXPECT_TRUE(submitter_.submit(out.request).is_ok());
    submitter_.flush();
    return out;
  }

  GateBackend gate_;
  std::map<std::string, std::string> names_;  // what the requests' views point to
  CompletionQueue completions_{CompletionQueue::Wake::kFutex};
  std::deque<RowRequest> samples_;
  Engine engine_{options()};
  Submitter submitter_{engine_};
};

TEST_F(RateLimitTest, ModelsTakeTurnsByPriority) {
  ASSERT_TRUE(engine_.load(spec("first", 1)).is_ok());
  ASSERT_TRUE(engine_.load(spec("second", 2)).is_ok());
  gate_.open = false;
  constexpr int kEach = 60;
  for (int i = 0; i < kEach; ++i) {
    submit("first");
    submit("second");
  }
  while (engine_.impl().limiter.in_line() == 0) std::this_thread::yield();  // the other one's thread is up
  std::map<std::string_view, int> ran;
  for (int i = 0; i < 2 * kEach; ++i) {
    Batch& batch = gate_.gate.next();
    EXPECT_EQ(gate_.gate.kept(), 0U) << "one at a time";
    if (i < kEach) ++ran[batch.slots()[0].request->model_name];
    echo(batch);
  }
  EXPECT_NEAR(ran["first"], 40, 3);
  EXPECT_NEAR(ran["second"], 20, 3);
  EXPECT_EQ(wait_for(completions_, 2 * kEach).size(), 2U * kEach);
}

TEST_F(RateLimitTest, ANeedThatCannotBeMetIsRefusedAndServesNothing) {
  const Status status = engine_.load(spec("greedy", 0, 2));
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_TRUE(status.message().starts_with(
      "instance_group[0].rate_limiter.resources[\"slots\"].count: got 2, want at most 1"))
      << status.message();
  EXPECT_FALSE(engine_.ready("greedy", ""));
}

TEST_F(RateLimitTest, AModelThatWaitsForAnotherIsUnloadedAllTheSame) {
  ASSERT_TRUE(engine_.load(spec("first", 1)).is_ok());
  ASSERT_TRUE(engine_.load(spec("second", 1)).is_ok());
  gate_.open = false;
  submit("first");
  Batch& running = gate_.gate.next();
  RowRequest& waits = submit("second");
  std::thread unload([&] { EXPECT_TRUE(engine_.unload("second", 1, 0).is_ok()); });
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_EQ(waits.request.response.status.code(), Code::kUnavailable);
  waits.request.reset();
  unload.join();
  echo(running);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
}

}  // namespace
}  // namespace fastserve
