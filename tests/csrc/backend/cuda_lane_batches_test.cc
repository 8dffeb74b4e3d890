// Batches on lanes, on the simulated CUDA driver, with the real engine around them: every value is looked at.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <thread>

#include "backend/backend_conformance.h"
#include "backend/cuda_counts.h"
#include "backend/cuda_lane_model.h"
#include "memory/region_table.h"
#include "support/shared_object.h"

namespace fastserve::test {
namespace {

// How many copies to the device began while a step of another stream was computing, by the order of the log.
int overlaps() {
  std::map<std::uint64_t, std::uint64_t> computing;  // operation -> stream
  int count = 0;
  for (const SimulatedLine& line : simulated_log()) {
    const bool step = std::string(line.name) == "lane_step";
    if (step && line.phase == SIMULATED_STARTED) computing[line.operation] = line.stream;
    if (step && line.phase == SIMULATED_ENDED) computing.erase(line.operation);
    if (std::string(line.name) != "h2d" || line.phase != SIMULATED_STARTED) continue;
    count += std::ranges::any_of(computing, [&](const auto& c) { return c.second != line.stream; }) ? 1 : 0;
  }
  return count;
}

CudaCountsRow counts() { return cuda_counts().front(); }

class LaneBatches : public ::testing::Test {
 protected:
  void TearDown() override {
    for (const int engine : {SIMULATED_H2D, SIMULATED_D2H, SIMULATED_COMPUTE}) simulated_cuda_hold(engine, 0);
    simulated_cuda_let_go();
    for (const char* setting : {"kernel_us", "h2d_us", "d2h_us"}) simulated_cuda_set(setting, 0);
  }
};

class LaneCounts : public LaneBatches, public ::testing::WithParamInterface<int> {};

TEST_P(LaneCounts, RaggedRowsComeBackRightFromPageLockedMemory) {
  const int lanes = GetParam();
  LaneEngine on;
  ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", std::to_string(lanes)}})).is_ok());
  simulated_cuda_set("kernel_us", 100);
  simulated_cuda_set("h2d_us", 50);
  simulated_cuda_clear_log();
  const std::int64_t unpinned = simulated_cuda_count("unpinned_copies");
  constexpr std::size_t kRequests = 1200;
  std::mt19937 random(static_cast<unsigned>(lanes));
  for (std::size_t i = 0; i < kRequests; ++i) {
    on.make(1 + static_cast<std::int64_t>(random() % 8));
    ASSERT_TRUE(on.submitter.submit(on.requests.back()->request).is_ok());
    if (i % 40 == 39) on.submitter.flush();
  }
  ASSERT_EQ(on.answers(kRequests), kRequests);
  for (const auto& request : on.requests) ASSERT_EQ(request->wrong(), "") << request->id;
  EXPECT_EQ(simulated_cuda_count("unpinned_copies"), unpinned);
  EXPECT_EQ(simulated_cuda_count("exec_overlaps"), 0);
  EXPECT_EQ(simulated_cuda_count("legacy_stream_calls"), 0);
  if (lanes == 1) {
    EXPECT_EQ(overlaps(), 0);
  }
}

// By order, not by time: while nothing may finish computing, each lane's copy runs to its end.
TEST_P(LaneCounts, CopiesRunWhileOtherLanesCompute) {
  const int lanes = GetParam();
  LaneEngine on;
  ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", std::to_string(lanes)}})).is_ok());
  simulated_cuda_clear_log();
  simulated_cuda_hold(SIMULATED_COMPUTE, 1);
  for (int i = 1; i <= lanes; ++i) {
    on.submit(i);
    ASSERT_TRUE(comes_true([i] { return lines_of("h2d", SIMULATED_ENDED) == i; }));
    ASSERT_TRUE(comes_true([] { return lines_of("lane_step", SIMULATED_STARTED) >= 1; }));
  }
  on.submit();  // no lane is free
  EXPECT_EQ(on.engine.statistics("lane", 1).value().pending, 1);
  simulated_cuda_hold(SIMULATED_COMPUTE, 0);
  ASSERT_EQ(on.answers(on.requests.size()), on.requests.size());
  for (const auto& request : on.requests) EXPECT_EQ(request->wrong(true), "");
  EXPECT_GE(overlaps(), lanes - 1);
  if (lanes == 1) {
    EXPECT_EQ(overlaps(), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(OneToFour, LaneCounts, ::testing::Values(1, 2, 3, 4));

// Without a free lane nothing starts: what waits meanwhile becomes one batch.
TEST_F(LaneBatches, WaitingRequestsBatchWhileNoLaneIsFree) {
  LaneEngine on;
  ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", "2"}})).is_ok());
  simulated_cuda_clear_log();
  const auto before = on.engine.statistics("lane", 1).value().execution_count;
  simulated_cuda_hold(SIMULATED_COMPUTE, 1);
  on.submit();
  ASSERT_TRUE(comes_true([] { return lines_of("h2d", SIMULATED_ENDED) == 1; }));
  on.submit();
  ASSERT_TRUE(comes_true([] { return lines_of("h2d", SIMULATED_ENDED) == 2; }));
  for (int i = 0; i < 8; ++i) on.submit();
  EXPECT_EQ(on.engine.statistics("lane", 1).value().pending, 8);
  EXPECT_EQ(lines_of("h2d", SIMULATED_QUEUED), 2);
  simulated_cuda_hold(SIMULATED_COMPUTE, 0);
  ASSERT_EQ(on.answers(10), 10U);
  for (const auto& request : on.requests) EXPECT_EQ(request->wrong(), "");
  EXPECT_LE(on.engine.statistics("lane", 1).value().execution_count - before, 5U);  // not 10
}

TEST_F(LaneBatches, ALaneThatIsDoneFirstAnswersFirst) {
  for (const char* completion : {"poll", "blocking"}) {
    SCOPED_TRACE(completion);
    LaneEngine on;
    ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", "2"}, {"completion", completion}})).is_ok());
    simulated_cuda_clear_log();
    simulated_cuda_fail("run:lane_step", 1, SIMULATED_HANG);  // until let_go
    LaneRequest& slow = on.submit();
    ASSERT_TRUE(comes_true([] { return lines_of("lane_step", SIMULATED_STARTED) == 1; }));
    LaneRequest& fast = on.submit(2);
    if (std::string(completion) == "poll") {
      const auto answered = wait_for(on.completions, 1);
      ASSERT_EQ(answered.size(), 1U);
      EXPECT_EQ(answered[0]->request, &fast.request);
      simulated_cuda_let_go();
      ASSERT_EQ(on.answers(1), 1U);
    } else {  // in the order of the starts
      ASSERT_TRUE(comes_true([] { return lines_of("d2h", SIMULATED_ENDED) == 2; }));
      simulated_cuda_let_go();
      ASSERT_EQ(on.answers(2), 2U);
    }
    EXPECT_EQ(slow.wrong(true), "");
    EXPECT_EQ(fast.wrong(true), "");
  }
}

// Directly on an instance, one request a batch: total sees every row that the step ran.
TEST_F(LaneBatches, PaddingRowsNeverHoldWhatAnEarlierBatchLeft) {
  for (const bool own : {false, true}) {
    for (const char* graphs : {"on", "off"}) {
      SCOPED_TRACE(std::string(own ? "own memory, graphs " : "lane memory, graphs ") + graphs);
      LaneModelLog log;
      CudaBackend backend(
          std::make_unique<LaneSource>("lane", LaneOptions{.owns_inputs = own, .owns_outputs = own}, log));
      auto model = backend.load(lane_spec({{"lanes", "1"}, {"graphs", graphs}}), {});
      ASSERT_TRUE(model.is_ok()) << model.status().message();
      auto instance = model.value()->make_instance(0);
      ASSERT_TRUE(instance.is_ok());
      BatchRun run(model.value()->signature());
      std::mt19937 random(7);
      for (int i = 0; i < 200; ++i) {
        const auto rows = static_cast<std::int64_t>(1 + random() % 8);
        const LaneRequest request(nullptr, rows, i + 1);
        run.clear();
        run.add(rows, request.request.inputs);
        ASSERT_TRUE(run.run(*instance.value(), bucket_for(*model.value(), rows)).is_ok());
        float sum = 0;
        for (const float value : request.values) sum += value;
        const auto total = run.output<float>(0, 1);
        ASSERT_EQ(total.size(), static_cast<std::size_t>(rows));
        for (const float seen : total) ASSERT_EQ(seen, sum) << "batch " << i << " of " << rows << " rows";
      }
    }
  }
}

TEST_F(LaneBatches, CancelWhileInFlightIsAnsweredOnce) {
  LaneEngine on;
  ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", "1"}})).is_ok());
  simulated_cuda_clear_log();
  simulated_cuda_hold(SIMULATED_COMPUTE, 1);
  LaneRequest& running = on.submit();
  ASSERT_TRUE(comes_true([] { return lines_of("lane_step", SIMULATED_STARTED) == 1; }));
  LaneRequest& waiting = on.submit();
  running.request.cancel();
  waiting.request.cancel();
  simulated_cuda_hold(SIMULATED_COMPUTE, 0);
  ASSERT_EQ(on.answers(2), 2U);
  EXPECT_EQ(on.completions.wait(monotonic_now() + 20 * kMillisecond), nullptr);
  EXPECT_EQ(waiting.code(), Code::kCancelled);
  EXPECT_EQ(running.wrong(true), "");  // it ran: the answer is there
}

TEST_F(LaneBatches, UnloadWaitsForWhatIsInFlightAndLeavesNothing) {
  for (const char* completion : {"poll", "blocking"}) {
    SCOPED_TRACE(completion);
    LaneEngine on;
    std::map<std::string, std::int64_t> before;
    for (const char* what : {"streams", "events", "execs", "graphs", "device_bytes"})
      before[what] = simulated_cuda_count(what);
    ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", "3"}, {"completion", completion}})).is_ok());
    EXPECT_GT(simulated_cuda_count("execs"), before["execs"]);
    simulated_cuda_clear_log();
    simulated_cuda_hold(SIMULATED_D2H, 1);
    LaneRequest& request = on.submit(3);
    ASSERT_TRUE(comes_true([] { return lines_of("d2h", SIMULATED_STARTED) == 1; }));
    request.request.deadline = kNever;
    std::thread unloader([&] { EXPECT_TRUE(on.engine.unload("lane", 1).is_ok()); });
    std::thread releaser([] {
      ::usleep(20'000);
      simulated_cuda_hold(SIMULATED_D2H, 0);
    });
    ASSERT_EQ(on.answers(1), 1U);
    EXPECT_EQ(request.wrong(true), "");
    request.request.reset();  // its handle on the version
    releaser.join();
    unloader.join();
    for (const auto& [what, count] : before) EXPECT_EQ(simulated_cuda_count(what.c_str()), count) << what;
    EXPECT_EQ(on.log.closed, 1);
    EXPECT_EQ(simulated_cuda_count("exec_destroyed_running"), 0);
    EXPECT_EQ(simulated_cuda_count("frees_while_busy"), 0);
  }
}

// A client's region goes straight to the device, and stays page-locked until its last request is through.
TEST_F(LaneBatches, ARegionMayBeUnregisteredWhileItIsRead) {
  LaneEngine on;
  ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", "1"}})).is_ok());
  on.engine.regions().allow({});
  SharedObject object(std::size_t{1} << 16);
  ASSERT_TRUE(on.engine.regions().add({"r", object.key(), 0, std::size_t{1} << 16}).is_ok());
  LaneRequest& request = on.make(3);
  std::memcpy(object.memory().data(), request.values.data(), request.values.size() * sizeof(float));
  request.request.inputs[0].data = {};
  request.request.shared_inputs.push_back({0, {"r", 0, request.values.size() * sizeof(float)}});
  const auto in_place = counts().in_place_copies;
  const auto unlocked = simulated_cuda_count("calls:cuMemHostUnregister");
  simulated_cuda_clear_log();
  simulated_cuda_hold(SIMULATED_H2D, 1);
  ASSERT_TRUE(on.submitter.submit(request.request).is_ok());
  on.submitter.flush();
  ASSERT_TRUE(comes_true([] { return lines_of("h2d", SIMULATED_STARTED) == 1; }));
  on.engine.regions().remove("r");
  EXPECT_EQ(simulated_cuda_count("calls:cuMemHostUnregister"), unlocked);
  simulated_cuda_hold(SIMULATED_H2D, 0);
  ASSERT_EQ(on.answers(1), 1U);
  EXPECT_EQ(request.wrong(true), "");
  EXPECT_EQ(counts().in_place_copies, in_place + 1);
  EXPECT_EQ(simulated_cuda_count("unpinned_during_copy"), 0);
  request.request.reset();
  EXPECT_EQ(simulated_cuda_count("calls:cuMemHostUnregister"), unlocked + 1);
}

// Answers go straight into a page-locked region of the client; to memory that is not page-locked by way of the batch's own.
TEST_F(LaneBatches, AnswersGoWhereTheClientWantsThem) {
  LaneEngine on;
  ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", "1"}})).is_ok());
  on.engine.regions().allow({});
  SharedObject object(std::size_t{1} << 16);
  ASSERT_TRUE(on.engine.regions().add({"r", object.key(), 0, std::size_t{1} << 16}).is_ok());
  LaneRequest& request = on.make(4);
  const std::size_t bytes = request.values.size() * sizeof(float);
  std::vector<std::byte> plain(4 * sizeof(float));
  request.request.requested_outputs.push_back({.name = "y", .shared = {"r", 4096, bytes}});
  request.request.requested_outputs.push_back({.name = "total", .destination = plain});
  const auto in_place = counts().in_place_copies;
  const auto unpinned = simulated_cuda_count("unpinned_copies");
  ASSERT_TRUE(on.submitter.submit(request.request).is_ok());
  on.submitter.flush();
  ASSERT_EQ(on.answers(1), 1U);
  EXPECT_EQ(request.wrong(true), "");
  EXPECT_EQ(counts().in_place_copies, in_place + 1);
  EXPECT_EQ(simulated_cuda_count("unpinned_copies"), unpinned);
  float first = 0;
  std::memcpy(&first, object.memory().data() + 4096, sizeof first);
  EXPECT_EQ(first, 2 * request.values[0] + 1);
}

TEST_F(LaneBatches, WhatCannotBeCapturedRunsWithoutAGraph) {
  LaneEngine on(LaneOptions{.not_capturable = {4}});
  ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", "2"}})).is_ok());
  const auto properties = on.status().properties;
  EXPECT_EQ(properties.at("graphs"), "3 of 4 sizes; 4 rows: this size loops");
  EXPECT_EQ(properties.at("lanes"), "2");
  EXPECT_EQ(properties.at("precision"), "FP32");
  on.log.ran_rows.clear();
  const auto fallback = counts().fallback_batches;
  for (const std::int64_t rows : {1, 3, 8, 4}) {
    LaneRequest& request = on.submit(rows);
    ASSERT_EQ(on.answers(1), 1U);
    EXPECT_EQ(request.wrong(true), "");
  }
  EXPECT_EQ(on.log.ran_rows, (std::vector<std::int64_t>{4, 4}));
  EXPECT_EQ(counts().fallback_batches, fallback + 2);
}

TEST_F(LaneBatches, FreeDimensionsRunWithTheRowsAndShapesThatCame) {
  LaneEngine on(LaneOptions{.buckets = {}, .owns_outputs = true, .free_columns = true});
  ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", "2"}})).is_ok());
  EXPECT_EQ(on.status().properties.at("graphs"), "none: the model runs batch by batch");
  on.log.ran_rows.clear();
  for (const std::int64_t columns : {1, 7, 300, 2}) {
    LaneRequest& request = on.submit(3, columns);
    ASSERT_EQ(on.answers(1), 1U);
    EXPECT_EQ(request.wrong(true), "");
  }
  EXPECT_EQ(on.log.ran_rows, (std::vector<std::int64_t>{3, 3, 3, 3}));
}

TEST_F(LaneBatches, AFailedRunOfTheModelFailsItsBatchOnly) {
  bool fails = false;
  LaneEngine on(LaneOptions{.on_run = [&] {
    return fails ? Status(Code::kInvalidArgument, "inputs[\"x\"]: the model does not like it") : Status::ok();
  }});
  ASSERT_TRUE(on.engine.load(lane_spec({{"graphs", "off"}, {"lanes", "1"}})).is_ok());
  fails = true;
  LaneRequest& failed = on.submit();
  ASSERT_EQ(on.answers(1), 1U);
  EXPECT_EQ(failed.code(), Code::kInvalidArgument);
  fails = false;
  LaneRequest& after = on.submit(2);
  ASSERT_EQ(on.answers(1), 1U);
  EXPECT_EQ(after.wrong(true), "");
}

// Weights are loaded once for a device, whatever the number of instances; each has lanes of its own.
TEST_F(LaneBatches, InstancesShareTheWeights) {
  LaneEngine on;
  LoadSpec spec = lane_spec();
  spec.instance_count = 3;
  ASSERT_TRUE(on.engine.load(spec).is_ok());
  EXPECT_EQ(on.log.opened, 1);
  EXPECT_EQ(on.log.captured, 3 * 4);  // one lane each
  EXPECT_EQ(on.status().properties.at("lanes"), "3");
  for (int i = 0; i < 50; ++i) on.submit(1 + i % 8);
  ASSERT_EQ(on.answers(50), 50U);
  for (const auto& request : on.requests) EXPECT_EQ(request->wrong(), "");
}

TEST_F(LaneBatches, AModelMayLoadWhileAnotherServes) {
  LaneEngine on;
  on.add("other", {});
  ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", "2"}})).is_ok());
  std::thread loader([&] {
    for (int i = 0; i < 5; ++i) {
      ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", "3"}}, "other")).is_ok());
      ASSERT_TRUE(on.engine.unload("other", 1).is_ok());
    }
  });
  for (int i = 0; i < 300; ++i) {
    LaneRequest& request = on.submit(1 + i % 8);
    ASSERT_EQ(on.answers(1), 1U);
    ASSERT_EQ(request.wrong(true), "");
  }
  loader.join();
  EXPECT_EQ(simulated_cuda_count("unsafe_calls_during_capture"), 0);
}

TEST_F(LaneBatches, BuffersFollowTheBatchSize) {
  LaneModelLog log;
  const auto refusal = [&](LaneOptions options) {
    CudaBackend backend(std::make_unique<LaneSource>("lane", std::move(options), log));
    return backend.load(lane_spec(), {}).status();
  };
  EXPECT_EQ(refusal({.buckets = {1, 2, 4}}).message(), "buckets: the last one is 4, want 8, the batch size");
  EXPECT_EQ(refusal({.buckets = {1, 1, 8}}).message(), "buckets[1]: got 1, want 2 to 8");
  EXPECT_EQ(refusal({.buckets = {1, 9}}).message(), "buckets[1]: got 9, want 2 to 8");
  EXPECT_EQ(refusal({.buckets = {1, 8}, .owns_outputs = true, .free_columns = true}).code(),
            Code::kInvalidArgument);
}

}  // namespace
}  // namespace fastserve::test
