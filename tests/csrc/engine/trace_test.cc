#include "engine/trace.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "engine/engine.h"
#include "support/samples.h"

namespace fastserve {
namespace {

class TraceTest : public ::testing::Test {
 protected:
  TraceTest() { EXPECT_TRUE(engine_.load(identity_spec()).is_ok()); }

  void infer(int times) {
    for (int i = 0; i < times; ++i) {
      RowRequest sample(&completions_);
      sample.request.id = "mine";
      ASSERT_TRUE(submitter_.infer(sample.request).is_ok());
      sample.request.reset();
    }
  }
  std::size_t traced(int requests) {
    infer(requests);
    return tracer_.take().size();
  }

  CompletionQueue completions_{CompletionQueue::Wake::kFutex};
  Engine engine_;
  Submitter submitter_{engine_};
  Tracer& tracer_ = engine_.tracer();
};

TEST_F(TraceTest, OffUntilSet) {
  EXPECT_FALSE(tracer_.on());
  EXPECT_EQ(traced(3), 0U);
}

TEST_F(TraceTest, ATraceSaysWhoAndWhen) {
  ASSERT_TRUE(tracer_.set("", {true, 1, -1}).is_ok());
  infer(2);
  const std::vector<Trace> traces = tracer_.take();
  ASSERT_EQ(traces.size(), 2U);
  const Trace& trace = traces[1];
  EXPECT_EQ(trace.id, 2U);
  EXPECT_EQ(trace.request_id, "mine");
  EXPECT_EQ(trace.model, "echo");
  EXPECT_EQ(trace.version, 1);
  std::vector<std::string_view> names;
  for (const auto& [name, moment] : trace.timestamps) names.push_back(name);
  EXPECT_EQ(names, (std::vector<std::string_view>{"REQUEST_START", "QUEUE_START", "COMPUTE_START",
                                                  "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START", "COMPUTE_END",
                                                  "REQUEST_END"}));
  EXPECT_TRUE(std::ranges::is_sorted(trace.timestamps, {}, [](const auto& entry) { return entry.second; }));
  EXPECT_TRUE(tracer_.take().empty());
}

TEST_F(TraceTest, OneOfRateTheFirstIncluded) {
  ASSERT_TRUE(tracer_.set("", {true, 4, -1}).is_ok());
  EXPECT_EQ(traced(1), 1U);
  EXPECT_EQ(traced(3), 0U);
  EXPECT_EQ(traced(8), 2U);
}

TEST_F(TraceTest, CountEndsItAndSettingItAgainStartsAnew) {
  ASSERT_TRUE(tracer_.set("", {true, 1, 2}).is_ok());
  EXPECT_EQ(traced(5), 2U);
  EXPECT_FALSE(tracer_.on()) << "nothing to look at any more";
  ASSERT_TRUE(tracer_.set("", {true, 1, 3}).is_ok());
  EXPECT_EQ(traced(5), 3U);
  ASSERT_TRUE(tracer_.set("", {true, 1, 0}).is_ok());
  EXPECT_EQ(traced(5), 0U);
  ASSERT_TRUE(tracer_.set("", {false, 1, -1}).is_ok());
  EXPECT_EQ(traced(5), 0U);
}

TEST_F(TraceTest, AModelsOwnSettingHidesTheOneForAll) {
  ASSERT_TRUE(tracer_.set("", {true, 1, -1}).is_ok());
  ASSERT_TRUE(tracer_.set("echo", {false, 1, -1}).is_ok());
  ASSERT_TRUE(tracer_.set("other", {true, 1, -1}).is_ok());
  EXPECT_EQ(traced(3), 0U);
  tracer_.clear("echo");
  EXPECT_EQ(traced(3), 3U);
  ASSERT_TRUE(tracer_.set("", {false, 1, -1}).is_ok());
  ASSERT_TRUE(tracer_.set("echo", {true, 1, -1}).is_ok());
  EXPECT_EQ(traced(3), 3U);
}

TEST_F(TraceTest, RateAndCountHaveLimits) {
  EXPECT_TRUE(tracer_.set("", {true, 1, -1}).is_ok());
  EXPECT_EQ(tracer_.set("", {true, 0, -1}).code(), Code::kInvalidArgument);
  EXPECT_EQ(tracer_.set("", {true, 1, -2}).message(), "trace_count: got -2, want -1 (no limit) or more");
}

TEST_F(TraceTest, WhatNobodyTakesIsDroppedAndCounted) {
  for (std::size_t i = 0; i < Tracer::kMaxKept; ++i) tracer_.keep({}, TraceSource::kEmbedded, 0);
  EXPECT_EQ(tracer_.dropped(), 0U);
  tracer_.keep({}, TraceSource::kEmbedded, 0);
  EXPECT_EQ(tracer_.dropped(), 1U);
  EXPECT_EQ(tracer_.take().size(), Tracer::kMaxKept);
}

TEST_F(TraceTest, FrontEndsAddTheirTimes) {
  ASSERT_TRUE(tracer_.set("", {true, 1, -1}).is_ok());
  RowRequest sample(&completions_);
  sample.request.times.received = 1;
  sample.request.times.complete = 2;
  ASSERT_TRUE(submitter_.submit(sample.request).is_ok());
  submitter_.flush();
  while (completions_.wait(kNever) == nullptr) {
  }
  for (const auto& [source, prefix] :
       {std::pair(TraceSource::kGrpc, "GRPC_"), std::pair(TraceSource::kHttp, "HTTP_")}) {
    auto trace = tracer_.sample(sample.request, source, kNever - 1);
    ASSERT_TRUE(trace);
    tracer_.keep(std::move(*trace), source, kNever);
    const Trace kept = tracer_.take().at(0);
    ASSERT_EQ(kept.timestamps.size(), 12U);
    EXPECT_EQ(kept.timestamps.front().second, 1);
    EXPECT_EQ(kept.timestamps.back().second, kNever);
    EXPECT_TRUE(kept.timestamps.front().first.starts_with(prefix));
    EXPECT_EQ(kept.timestamps.back().first, std::string(prefix) + "SEND_END");
    EXPECT_TRUE(std::ranges::is_sorted(kept.timestamps, {}, [](const auto& entry) { return entry.second; }));
  }
  sample.request.reset();
}

}  // namespace
}  // namespace fastserve
