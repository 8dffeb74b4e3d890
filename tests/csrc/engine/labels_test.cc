// Labels through the engine: before the load, across unload and reload, from many threads. Run under TSan as well. Who gets
// which request: tests/csrc/model/version_label_test.cc.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <thread>

#include "engine/engine.h"
#include "support/samples.h"

namespace fastserve {
namespace {

class LabelsTest : public ::testing::Test {
 protected:
  void load(std::int64_t version) {
    LoadSpec spec = identity_spec();
    spec.version = version;
    const Status status = engine_.load(spec);
    ASSERT_TRUE(status.is_ok()) << status.message();
  }
  // Versions that answered.
  static std::map<std::int64_t, int> ask(Submitter& submitter, std::string_view label, int requests) {
    CompletionQueue completions{CompletionQueue::Wake::kFutex};
    std::map<std::int64_t, int> got;
    for (int i = 0; i < requests; ++i) {
      RowRequest sample(&completions, 1, i);
      sample.request.model_version = label;
      const auto response = submitter.infer(sample.request);
      EXPECT_TRUE(response.is_ok()) << response.status().message();
      if (!response.is_ok()) continue;
      EXPECT_TRUE(sample.echoed());
      ++got[sample.request.version->number];
      sample.request.reset();
    }
    return got;
  }
  Status refusal(std::string_view label) {
    RowRequest sample(&completions_);
    sample.request.model_version = label;
    const Status status = submitter_.submit(sample.request);
    EXPECT_FALSE(status.is_ok());
    return status;
  }
  using Got = std::map<std::int64_t, int>;

  CompletionQueue completions_{CompletionQueue::Wake::kFutex};
  Engine engine_;
  Submitter submitter_{engine_};
};

TEST_F(LabelsTest, AreGivenBeforeTheVersionIsThere) {
  ASSERT_TRUE(engine_.set_labels("echo", {{"stable", {{1, 1}}}, {"next", {{2, 1}}}}).is_ok());
  EXPECT_EQ(refusal("stable").code(), Code::kFailedPrecondition);
  EXPECT_FALSE(engine_.ready("echo", "stable"));
  load(1);
  EXPECT_TRUE(engine_.ready("echo", "stable"));
  EXPECT_FALSE(engine_.ready("echo", "next"));
  EXPECT_EQ(ask(submitter_, "stable", 3), (Got{{1, 3}}));
  EXPECT_EQ(refusal("next").message(), "model 'echo' label 'next': version 2 is not at ready state");
  load(2);
  EXPECT_EQ(ask(submitter_, "next", 3), (Got{{2, 3}}));
  EXPECT_EQ(ask(submitter_, "stable", 3), (Got{{1, 3}}));
  const auto resolved = engine_.resolve("echo", "next");
  ASSERT_TRUE(resolved.is_ok());
  EXPECT_EQ((*resolved)->number, 2);
  (*resolved)->release();
}

TEST_F(LabelsTest, FollowUnloadAndReload) {
  load(1);
  load(2);
  ASSERT_TRUE(engine_.set_labels("echo", {{"canary", {{1, 95}, {2, 5}}}}).is_ok());
  EXPECT_EQ(ask(submitter_, "canary", 1000), (Got{{1, 950}, {2, 50}}));
  ASSERT_TRUE(engine_.unload("echo", 2).is_ok());
  EXPECT_EQ(ask(submitter_, "canary", 100), (Got{{1, 100}}));
  load(2);
  load(1);  // again: the old one is replaced
  EXPECT_EQ(ask(submitter_, "canary", 1000), (Got{{1, 950}, {2, 50}}));
  ASSERT_TRUE(engine_.unload("echo", 1).is_ok());
  ASSERT_TRUE(engine_.unload("echo", 2).is_ok());
  EXPECT_EQ(refusal("canary").code(), Code::kFailedPrecondition);
  EXPECT_EQ(engine_.statistics("echo", 1).status().code(), Code::kNotFound);
  const auto labels = engine_.labels();
  ASSERT_EQ(labels.size(), 2U);
  EXPECT_EQ(labels[0].requests, 950U + 100 + 950);
  EXPECT_EQ(labels[1].requests, 100U);
  EXPECT_FALSE(labels[0].ready);
}

TEST_F(LabelsTest, ChangeAtOnceAndAllTogether) {
  load(1);
  load(2);
  ASSERT_TRUE(engine_.set_labels("echo", {{"a", {{1, 1}}}, {"b", {{2, 1}}}}).is_ok());
  EXPECT_EQ(ask(submitter_, "a", 1), (Got{{1, 1}}));
  ASSERT_TRUE(engine_.set_labels("echo", {{"a", {{2, 1}}}, {"default", {{1, 1}}}}).is_ok());
  EXPECT_EQ(ask(submitter_, "a", 1), (Got{{2, 1}}));
  EXPECT_EQ(ask(submitter_, "", 2), (Got{{1, 2}}));
  EXPECT_EQ(refusal("b").code(), Code::kInvalidArgument);
  EXPECT_EQ(engine_.set_labels("echo", {{"3", {{1, 1}}}}).code(), Code::kInvalidArgument);
  EXPECT_EQ(ask(submitter_, "a", 1), (Got{{2, 1}})) << "a refused change changes nothing";
  ASSERT_TRUE(engine_.set_labels("echo", {}).is_ok());
  EXPECT_EQ(ask(submitter_, "", 2), (Got{{2, 2}}));
  EXPECT_EQ(refusal("a").code(), Code::kInvalidArgument);
  EXPECT_TRUE(engine_.labels().empty());
  EXPECT_EQ(engine_.set_labels("", {}).code(), Code::kInvalidArgument);
}

TEST_F(LabelsTest, AreRefusedLikeAllElseWhenTheEngineDrains) {
  load(1);
  ASSERT_TRUE(engine_.set_labels("echo", {{"a", {{1, 1}}}}).is_ok());
  EXPECT_TRUE(engine_.drain(kNever));
  ASSERT_TRUE(engine_.set_labels("echo", {{"b", {{1, 1}}}}).is_ok());
  EXPECT_EQ(refusal("a").code(), Code::kUnavailable);
  EXPECT_EQ(refusal("b").code(), Code::kUnavailable);
}

// One thread reloads, unloads and moves labels; the others must never see a failure, because version 1 always serves.
TEST_F(LabelsTest, MoveUnderLoad) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  constexpr int kRounds = 40;
#else
  constexpr int kRounds = 200;
#endif
  load(1);
  ASSERT_TRUE(engine_.set_labels("echo", {{"canary", {{1, 1}, {2, 1}}}, {"default", {{2, 1}}}}).is_ok());
  std::atomic<bool> stop{false};
  std::atomic<std::int64_t> first{0}, second{0};
  std::vector<std::thread> threads;
  for (const char* version : {"canary", "canary", ""}) {
    threads.emplace_back([&, version] {
      Submitter submitter(engine_);
      while (!stop.load(std::memory_order_relaxed)) {
        for (const auto& [number, count] : ask(submitter, version, 20))
          (number == 1 ? first : second) += count;
      }
    });
  }
  for (int round = 0; round < kRounds; ++round) {
    load(2);
    const std::int64_t weight = round % 100;
    ASSERT_TRUE(
        engine_.set_labels("echo", {{"canary", {{1, 100 - weight}, {2, weight}}}, {"default", {{2, 1}}}})
            .is_ok());
    if (round % 3 == 0) load(2);  // replaced while it serves
    ASSERT_TRUE(engine_.unload("echo", 2).is_ok());
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(first, 0);
  EXPECT_GT(second, 0);
  std::uint64_t counted = 0;
  for (const LabelStatus& each : engine_.labels()) counted += each.label == "canary" ? each.requests : 0;
  EXPECT_GT(counted, 0U);
}

}  // namespace
}  // namespace fastserve
