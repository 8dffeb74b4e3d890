// Requests larger than a batch: cut, run, put together; and every way in which a part can fail.
#include "engine/split_request.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <thread>

#include "engine/engine.h"
#include "support/gate_backend.h"
#include "support/samples.h"

namespace fastserve {
namespace {

class SplitRequestTest : public ::testing::Test {
 protected:
  SplitRequestTest() { engine_.backends().add(gate_); }
  ~SplitRequestTest() override {
    for (RowRequest& sample : samples_) sample.request.reset();
  }
  static LoadSpec spec(std::int64_t max_rows = 4, std::int64_t request_rows = 40, int instances = 1) {
    LoadSpec out = identity_spec(max_rows, instances);
    out.backend = "gate";
    out.max_request_rows = request_rows;
    return out;
  }
  RowRequest& sample(std::int64_t rows) {
    return samples_.emplace_back(&completions_, rows, static_cast<std::int32_t>(samples_.size()));
  }
  RowRequest& submit(std::int64_t rows) {
    RowRequest& out = sample(rows);
    EXPECT_TRUE(submitter_.submit(out.request).is_ok());
    submitter_.flush();
    return out;
  }
  VersionStatistics statistics() { return engine_.statistics("echo", 1).value(); }
  // Nothing waits, nothing is owed, nobody holds the version.
  void expect_nothing_left() {
    EXPECT_EQ(statistics().pending, 0);
    while (statistics().in_flight != 0) std::this_thread::yield();  // counted after the delivery
    for (RowRequest& sample : samples_) sample.request.reset();
    EXPECT_TRUE(engine_.unload("echo", 1).is_ok());
  }

  GateBackend gate_;
  CompletionQueue completions_{CompletionQueue::Wake::kFutex};
  std::deque<RowRequest> samples_;
  Engine engine_;
  Submitter submitter_{engine_};
};

TEST_F(SplitRequestTest, IsAnsweredAsOne) {
  ASSERT_TRUE(engine_.load(spec()).is_ok());
  gate_.ran_rows.clear();
  for (const std::int64_t rows : {1, 4, 5, 8, 39, 40}) {
    RowRequest& request = submit(rows);
    ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
    EXPECT_TRUE(request.echoed()) << rows;
    EXPECT_EQ(request.request.rows, rows);
  }
  EXPECT_TRUE(std::ranges::all_of(gate_.ran_rows, [](std::int64_t rows) { return rows <= 4; }));
  expect_nothing_left();
}

TEST_F(SplitRequestTest, InferBlocksForTheWhole) {
  ASSERT_TRUE(engine_.load(spec(4, 40, 2)).is_ok());
  for (int i = 0; i < 50; ++i) {
    RowRequest& request = sample(1 + i % 40);
    ASSERT_TRUE(submitter_.infer(request.request).is_ok());
    EXPECT_TRUE(request.echoed());
    request.request.reset();
  }
  expect_nothing_left();
}

TEST_F(SplitRequestTest, TheLimitOfARequest) {
  ASSERT_TRUE(engine_.load(spec(4, 10)).is_ok());
  EXPECT_TRUE(submitter_.submit(sample(9).request).is_ok());
  EXPECT_TRUE(submitter_.submit(sample(10).request).is_ok());
  const Status status = submitter_.submit(sample(11).request);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("inference request batch-size must be <= 10 for 'echo'"), std::string::npos)
      << status.message();
  submitter_.flush();
  EXPECT_EQ(wait_for(completions_, 2).size(), 2U);
}

TEST_F(SplitRequestTest, WithoutItNothingIsSplit) {
  ASSERT_TRUE(engine_.load(spec(4, 0)).is_ok());
  const Status status = submitter_.submit(sample(5).request);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("inference request batch-size must be <= 4 for 'echo'"), std::string::npos);
}

TEST_F(SplitRequestTest, TheConfigurationHasLimits) {
  const auto load = [&](std::int64_t max_rows, std::int64_t request_rows) {
    return engine_.load(spec(max_rows, request_rows));
  };
  EXPECT_EQ(load(4, 3).code(), Code::kInvalidArgument);
  EXPECT_TRUE(load(4, 4).is_ok());
  EXPECT_TRUE(load(4, 4095).is_ok());
  EXPECT_TRUE(load(4, 4096).is_ok());
  const Status status = load(4, 4097);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("max_request_rows: got 4097, want 0 or 4 to 4096"), std::string::npos)
      << status.message();
  EXPECT_EQ(load(0, 8).code(), Code::kInvalidArgument);
  EXPECT_EQ(load(4, -1).code(), Code::kInvalidArgument);
}

TEST_F(SplitRequestTest, OutputsInTheOrderAskedForWithBytes) {
  LoadSpec both = spec(2, 8);
  both.inputs = {{"x", DType::kInt32, Shape{-1, 1}, false}, {"s", DType::kBytes, Shape{-1, 2}, false}};
  both.outputs = {{"y", DType::kInt32, Shape{-1, 1}, false}, {"t", DType::kBytes, Shape{-1, 2}, false}};
  ASSERT_TRUE(engine_.load(both).is_ok());
  const std::vector<std::int32_t> numbers{1, 2, 3, 4, 5};
  const auto texts = serialized({"", "a", "bb", "ccc", "dddd", "e", "", "f", "ggggggggg", "h"});
  RowRequest& request = sample(1);
  request.request.inputs = {{"s", DType::kBytes, Shape{5, 2}, texts},
                            {"x", DType::kInt32, Shape{5, 1}, bytes_of(numbers)}};
  request.request.requested_outputs = {{"t", 0, true}, {"y", 3, false}};
  ASSERT_TRUE(submitter_.infer(request.request).is_ok());
  const Response& response = request.request.response;
  ASSERT_TRUE(response.status.is_ok()) << response.status.message();
  ASSERT_EQ(response.outputs.size(), 2U);
  EXPECT_EQ(response.outputs[0].index, 1);
  EXPECT_EQ(response.outputs[0].shape, (Shape{5, 2}));
  EXPECT_TRUE(std::ranges::equal(response.outputs[0].data, texts));
  EXPECT_EQ(response.outputs[1].shape, (Shape{5, 1}));
  EXPECT_TRUE(std::ranges::equal(response.outputs[1].data, bytes_of(numbers)));
}

TEST_F(SplitRequestTest, IsCountedAsOneRequest) {
  ASSERT_TRUE(engine_.load(spec()).is_ok());
  RowRequest& request = submit(10);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  const VersionStatistics stats = statistics();
  EXPECT_EQ(stats.success.count, 1U);
  EXPECT_EQ(stats.inference_count, 10U);
  EXPECT_EQ(stats.execution_count, 3U);
  EXPECT_EQ(stats.queue.count, 1U);
  EXPECT_EQ(stats.compute_input.count, 1U);
  EXPECT_EQ(stats.compute_infer.count, 1U);
  EXPECT_EQ(stats.compute_output.count, 1U);
  const StageTimes& times = request.request.times;
  EXPECT_LE(times.enqueued, times.dequeued);
  EXPECT_LE(times.dequeued, times.run_start);
  EXPECT_LE(times.run_start, times.run_end);
  EXPECT_LE(times.run_end, times.delivered);
  EXPECT_EQ(stats.queue.ns + stats.compute_input.ns + stats.compute_infer.ns + stats.compute_output.ns,
            stats.success.ns);
}

TEST_F(SplitRequestTest, OnePartThatFailsFailsTheWhole) {
  gate_.open = false;
  LoadSpec gated = spec(4, 40, 1);
  gate_.open = true;
  ASSERT_TRUE(engine_.load(gated).is_ok());
  gate_.open = false;
  RowRequest& request = submit(12);
  echo(gate_.gate.next());
  gate_.gate.next().finish({Code::kResourceExhausted, "no more of it"});
  // The third part never ran, or its answer no longer matters.
  const Nanos until = monotonic_now() + 20 * kSecond;
  std::vector<Response*> answers;
  while (answers.empty() && monotonic_now() < until) {
    if (gate_.gate.kept() != 0) echo(gate_.gate.next());
    if (Response* response = completions_.wait(monotonic_now() + kMillisecond)) answers.push_back(response);
  }
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0]->request, &request.request);
  EXPECT_EQ(answers[0]->status.code(), Code::kResourceExhausted);
  EXPECT_EQ(answers[0]->status.message(), "no more of it");
  EXPECT_TRUE(answers[0]->outputs.empty());
  const VersionStatistics stats = statistics();
  EXPECT_EQ(stats.fail.count, 1U);
  EXPECT_EQ(stats.cancel.count, 0U);
  EXPECT_EQ(stats.success.count, 0U);
  EXPECT_EQ(stats.inference_count, 0U);
  gate_.open = true;
  expect_nothing_left();
}

TEST_F(SplitRequestTest, CancellationReachesTheWaitingParts) {
  ASSERT_TRUE(engine_.load(spec()).is_ok());
  gate_.open = false;
  RowRequest& request = submit(40);
  Batch& running = gate_.gate.next();
  request.request.cancel();
  while (statistics().pending != 0) std::this_thread::yield();
  EXPECT_EQ(completions_.take_all(), nullptr) << "one part still runs and reads the inputs";
  echo(running);
  const auto answers = wait_for(completions_, 1);
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0]->status.code(), Code::kCancelled);
  EXPECT_EQ(gate_.gate.kept(), 0U);
  EXPECT_EQ(statistics().cancel.count, 1U);
  gate_.open = true;
  expect_nothing_left();
}

TEST_F(SplitRequestTest, CancelledBeforeItWasSubmitted) {
  ASSERT_TRUE(engine_.load(spec()).is_ok());
  gate_.ran_rows.clear();
  RowRequest& request = sample(12);
  request.request.cancel();
  ASSERT_TRUE(submitter_.submit(request.request).is_ok());
  submitter_.flush();
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_EQ(request.request.response.status.code(), Code::kCancelled);
  EXPECT_TRUE(gate_.ran_rows.empty());
}

TEST_F(SplitRequestTest, TheDeadlineReachesTheWaitingParts) {
  ASSERT_TRUE(engine_.load(spec()).is_ok());
  gate_.open = false;
  submit(1);
  Batch& running = gate_.gate.next();
  RowRequest& late = sample(40);
  late.request.deadline = monotonic_now() + 20 * kMillisecond;
  ASSERT_TRUE(submitter_.submit(late.request).is_ok());
  submitter_.flush();
  const auto answers = wait_for(completions_, 1);
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0]->request, &late.request);
  EXPECT_EQ(answers[0]->status.code(), Code::kDeadlineExceeded);
  EXPECT_EQ(statistics().requests_rejected["deadline"], 1U);
  echo(running);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  gate_.open = true;
  expect_nothing_left();
}

TEST_F(SplitRequestTest, TheQueueTimeoutReachesTheWaitingParts) {
  ASSERT_TRUE(engine_.load(spec()).is_ok());
  gate_.open = false;
  submit(1);
  Batch& running = gate_.gate.next();
  RowRequest& late = sample(8);
  late.request.queue_timeout_ns = 20 * kMillisecond;
  ASSERT_TRUE(submitter_.submit(late.request).is_ok());
  submitter_.flush();
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_EQ(late.request.response.status.code(), Code::kUnavailable);
  EXPECT_EQ(statistics().requests_rejected["queue_timeout"], 1U);
  EXPECT_EQ(statistics().rejected.count, 1U);
  echo(running);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
}

TEST_F(SplitRequestTest, UnloadingRefusesTheWaitingParts) {
  ASSERT_TRUE(engine_.load(spec()).is_ok());
  gate_.open = false;
  RowRequest& request = submit(12);
  Batch& running = gate_.gate.next();
  std::thread unloading([&] { EXPECT_TRUE(engine_.unload("echo", 1, kMillisecond).is_ok()); });
  while (statistics().pending != 0) std::this_thread::yield();
  echo(running);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_EQ(request.request.response.status.code(), Code::kUnavailable);
  EXPECT_EQ(statistics().requests_rejected["unloading"], 1U);
  request.request.reset();
  unloading.join();
}

// It takes one place: the last free one will do, and what is beyond the limit is its own parts.
TEST_F(SplitRequestTest, TakesOnePlaceInTheQueue) {
  LoadSpec tight = spec();
  tight.limits.max_queue_requests = 2;
  ASSERT_TRUE(engine_.load(tight).is_ok());
  gate_.open = false;
  submit(4);
  Batch& running = gate_.gate.next();
  submit(4);                                // one place
  RowRequest& large = submit(40);           // the other one
  EXPECT_EQ(statistics().pending, 1 + 10);  // but each part waits
  RowRequest& refused = sample(1);
  EXPECT_EQ(submitter_.submit(refused.request).code(), Code::kUnavailable);
  RowRequest& refused_large = sample(40);
  EXPECT_EQ(submitter_.submit(refused_large.request).code(), Code::kUnavailable);
  EXPECT_EQ(refused_large.request.parts, nullptr);
  gate_.open = true;
  echo(running);
  ASSERT_EQ(wait_for(completions_, 3).size(), 3U);
  EXPECT_TRUE(large.echoed());
  EXPECT_TRUE(submitter_.submit(refused.request).is_ok());
  submitter_.flush();
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  expect_nothing_left();
}

// Rows beyond what the queue's packed counter holds of one request.
TEST_F(SplitRequestTest, ManyRows) {
  ASSERT_TRUE(engine_.load(spec(1024, 200'000)).is_ok());
  RowRequest& request = submit(200'000);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_TRUE(request.echoed());
  expect_nothing_left();
}

TEST_F(SplitRequestTest, IsCachedAsAWhole) {
  EngineOptions options;
  options.response_cache_bytes = 1U << 20U;
  Engine engine(options);
  LoadSpec cached = identity_spec(4);
  cached.max_request_rows = 40;
  cached.response_cache = true;
  ASSERT_TRUE(engine.load(cached).is_ok());
  Submitter submitter(engine);
  for (int i = 0; i < 2; ++i) {
    RowRequest request(&completions_, 10, 1);
    ASSERT_TRUE(submitter.infer(request.request).is_ok());
    EXPECT_TRUE(request.echoed());
    request.request.reset();
  }
  const VersionStatistics stats = engine.statistics("echo", 1).value();
  EXPECT_EQ(stats.cache_hit.count, 1U);
  EXPECT_EQ(stats.cache_miss.count, 1U);
  EXPECT_EQ(stats.success.count, 2U);
  EXPECT_EQ(stats.inference_count, 10U);
  EXPECT_EQ(engine.response_cache().entries, 1U);
}

// Outputs whose other dimensions depend on the rows of the batch do not fit together.
class RaggedInstance final : public BackendInstance {
 public:
  int depth() const override { return 1; }
  void start(Batch& batch) override {
    const std::int64_t rows = batch.run_rows();
    const auto bytes = static_cast<std::size_t>(rows * rows) * sizeof(std::int32_t);
    std::byte* memory = batch.output_memory(0, bytes);
    std::fill_n(memory, bytes, std::byte{0});
    batch.set_output(0, DType::kInt32, Shape{rows, rows}, memory, bytes);
    batch.finish(Status::ok());
  }
};
class RaggedModel final : public LoadedModel {
 public:
  explicit RaggedModel(const LoadSpec& spec) : signature_{spec.inputs, spec.outputs, spec.max_batch_rows} {}
  const Signature& signature() const override { return signature_; }
  int instance_count() const override { return 1; }
  std::span<const std::int64_t> buckets() const override { return {}; }
  Result<std::unique_ptr<BackendInstance>> make_instance(int) override {
    return std::unique_ptr<BackendInstance>(std::make_unique<RaggedInstance>());
  }
  std::map<std::string, std::string> properties() const override { return {}; }
  std::string_view platform() const override { return "ragged"; }

 private:
  Signature signature_;
};
class RaggedBackend final : public Backend {
 public:
  std::string_view name() const override { return "ragged"; }
  Result<std::unique_ptr<LoadedModel>> load(const LoadSpec& spec, const Progress&) override {
    return std::unique_ptr<LoadedModel>(std::make_unique<RaggedModel>(spec));
  }
};

TEST_F(SplitRequestTest, AnswersThatDoNotFitTogether) {
  RaggedBackend ragged;
  Engine engine;
  engine.backends().add(ragged);
  LoadSpec ragged_spec = spec(4, 40);
  ragged_spec.backend = "ragged";
  ragged_spec.outputs[0].shape = Shape{-1, -1};
  ASSERT_TRUE(engine.load(ragged_spec).is_ok());
  Submitter submitter(engine);
  RowRequest fits(&completions_, 8);
  ASSERT_TRUE(submitter.infer(fits.request).is_ok());
  EXPECT_TRUE(fits.request.response.status.is_ok());
  fits.request.reset();
  RowRequest other(&completions_, 6);
  ASSERT_TRUE(submitter.infer(other.request).is_ok());
  EXPECT_EQ(other.request.response.status.code(), Code::kInvalidArgument);
  EXPECT_NE(other.request.response.status.message().find("outputs[\"y\"].shape: got [2,2] and [4,4]"),
            std::string::npos)
      << other.request.response.status.message();
  other.request.reset();
}

// Cancellations, deadlines and reloads on top of a stream of large requests: each is answered once, and rightly.
TEST(SplitRequestStress, ThreadsCancelsAndReloads) {
  Engine engine;
  LoadSpec spec = identity_spec(4, 2);
  spec.max_request_rows = 64;
  ASSERT_TRUE(engine.load(spec).is_ok());
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> answered{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      CompletionQueue completions(CompletionQueue::Wake::kFutex);
      Submitter submitter(engine);
      std::deque<RowRequest> samples;
      for (int i = 0; i < 4; ++i) samples.emplace_back(&completions);
      for (int round = 0; !stop.load(); ++round) {
        std::size_t out = 0;
        for (std::size_t i = 0; i < samples.size(); ++i) {
          RowRequest& sample = samples[i];
          sample.fill(1 + (round * 7 + t) % 64, round);
          sample.request.completions = &completions;
          if (i == 1) sample.request.deadline = monotonic_now() + 20 * kMicrosecond;
          out += submitter.submit(sample.request).is_ok() ? 1 : 0;
        }
        submitter.flush();
        if (samples[2].request.version != nullptr) samples[2].request.cancel();
        ASSERT_EQ(wait_for(completions, out).size(), out);
        for (RowRequest& sample : samples) {
          if (sample.request.version != nullptr) {
            const Status& status = sample.request.response.status;
            EXPECT_TRUE(status.is_ok()
                            ? sample.echoed()
                            : status.code() == Code::kCancelled || status.code() == Code::kDeadlineExceeded)
                << status.message();
            ++answered;
          }
          sample.request.reset();
        }
      }
    });
  }
  for (int i = 0; i < 5; ++i) {
    const std::uint64_t seen = answered.load();
    while (answered.load() < seen + 300) std::this_thread::yield();
    ASSERT_TRUE(engine.load(spec).is_ok());
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  while (engine.statistics("echo", 1).value().in_flight != 0) std::this_thread::yield();
}

}  // namespace
}  // namespace fastserve
