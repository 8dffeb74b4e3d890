// Statistics read, and traces switched and taken, while requests run: nobody waits, nothing is lost.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "engine/trace.h"
#include "support/gate_backend.h"
#include "support/samples.h"

namespace fastserve {
namespace {

constexpr int kThreads = 3;
constexpr int kEach = 2000;

void infer_many(Engine& engine) {
  CompletionQueue completions(CompletionQueue::Wake::kFutex);
  Submitter submitter(engine);
  RowRequest sample(&completions, 2);
  for (int i = 0; i < kEach; ++i) {
    EXPECT_TRUE(submitter.infer(sample.request).is_ok());
    sample.request.reset();
    sample.request.completions = &completions;
    sample.fill(2, i);
  }
}

TEST(ReadStatistics, FiguresOnlyGrowAndAreCompleteInTheEnd) {
  Engine engine;
  ASSERT_TRUE(engine.load(identity_spec(8, 2)).is_ok());
  std::atomic<int> running{kThreads};
  std::vector<std::thread> submitters;
  for (int i = 0; i < kThreads; ++i) {
    submitters.emplace_back([&] {
      infer_many(engine);
      --running;
    });
  }
  std::uint64_t before = 0;
  std::size_t traces = 0;
  while (running != 0) {
    const VersionStatistics now = engine.statistics("echo", 1).value();
    EXPECT_GE(now.success.count, before);
    before = now.success.count;
    EXPECT_TRUE(engine.tracer().set("", {before % 2 == 0, 1, -1}).is_ok());
    traces += engine.tracer().take().size();
  }
  for (std::thread& submitter : submitters) submitter.join();
  const VersionStatistics all = engine.statistics("echo", 1).value();
  EXPECT_EQ(all.success.count, kThreads * kEach);
  EXPECT_EQ(all.inference_count, 2U * kThreads * kEach);
  EXPECT_EQ(all.queue.count, all.success.count);
  EXPECT_EQ(all.compute_infer.count, all.success.count);
  std::uint64_t batches = 0;
  for (const BatchSizeTotal& size : all.batches) batches += size.compute_infer.count;
  EXPECT_EQ(all.execution_count, batches);
  EXPECT_EQ(all.batch_rows.sum, static_cast<double>(all.inference_count));
  EXPECT_LE(traces, all.success.count);
  EXPECT_EQ(engine.tracer().dropped(), 0U);
}

TEST(ReadStatistics, EveryWayToEndHasOnePlace) {
  GateBackend gate;
  Engine engine;
  engine.backends().add(gate);
  LoadSpec spec = identity_spec(1);
  spec.backend = "gate";
  ASSERT_TRUE(engine.load(spec).is_ok());
  CompletionQueue completions(CompletionQueue::Wake::kFutex);
  Submitter submitter(engine);
  RowRequest sample(&completions);
  EXPECT_TRUE(submitter.infer(sample.request).is_ok());
  sample.request.reset();
  gate.fault = Fault::kStartFails;
  sample.fill(1, 1);
  EXPECT_FALSE(submitter.infer(sample.request).value()->status.is_ok());
  sample.request.reset();
  const VersionStatistics s = engine.statistics("echo", 1).value();
  EXPECT_EQ(s.success.count, 1U);
  EXPECT_EQ(s.fail.count, 1U);
  EXPECT_EQ(s.other.count, 0U) << "the backend is to blame";
  EXPECT_GT(engine.status().front().load_seconds, 0);
}

}  // namespace
}  // namespace fastserve
