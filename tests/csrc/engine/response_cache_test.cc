// The response cache through the engine: who hits, what is counted, how much is kept, and that no wrong answer comes out.
#include "engine/response_cache.h"

#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <string>
#include <thread>

#include "base/log.h"
#include "engine/engine.h"
#include "engine/request_key.h"
#include "support/gate_backend.h"
#include "support/samples.h"

namespace fastserve {
namespace {

constexpr std::uint64_t kRoomy = 1U << 20U;

EngineOptions with_cache(std::uint64_t bytes) {
  EngineOptions out;
  out.response_cache_bytes = bytes;
  return out;
}

LoadSpec cached_spec(const char* backend = "gate", std::int64_t max_rows = 4) {
  LoadSpec spec = identity_spec(max_rows);
  spec.backend = backend;
  spec.response_cache = true;
  return spec;
}

class ResponseCacheTest : public ::testing::Test {
 protected:
  explicit ResponseCacheTest(std::uint64_t bytes = kRoomy) : engine_(with_cache(bytes)) {
    engine_.backends().add(gate_);
  }
  ~ResponseCacheTest() override {
    for (RowRequest& sample : samples_) sample.request.reset();
  }
  RowRequest& sample(std::int32_t seed, std::int64_t rows = 1, std::int64_t columns = 2) {
    return samples_.emplace_back(&completions_, rows, seed, columns);
  }
  // Submits and waits; how often the model ran for it.
  int runs_for(RowRequest& request) {
    const std::size_t before = gate_.ran_rows.size();
    EXPECT_TRUE(submitter_.submit(request.request).is_ok());
    submitter_.flush();
    EXPECT_EQ(wait_for(completions_, 1).size(), 1U);
    return static_cast<int>(gate_.ran_rows.size() - before);
  }
  VersionStatistics statistics(std::int64_t version = 1) {
    return engine_.statistics("echo", version).value();
  }

  GateBackend gate_;
  CompletionQueue completions_{CompletionQueue::Wake::kFutex};
  std::deque<RowRequest> samples_;
  Engine engine_;
  Submitter submitter_{engine_};
};

TEST_F(ResponseCacheTest, TheSecondOfTwoEqualRequestsDoesNotRun) {
  ASSERT_TRUE(engine_.load(cached_spec()).is_ok());
  RowRequest& first = sample(7, 3);
  RowRequest& second = sample(7, 3);
  EXPECT_EQ(runs_for(first), 1);
  EXPECT_EQ(runs_for(second), 0);
  EXPECT_TRUE(second.echoed());
  EXPECT_EQ(second.request.version->number_text, "1");
  EXPECT_NE(second.request.response.outputs[0].data.data(), first.request.response.outputs[0].data.data());
  EXPECT_EQ(runs_for(sample(8, 3)), 1);
}

TEST_F(ResponseCacheTest, AHitIsASuccessWithoutExecution) {
  ASSERT_TRUE(engine_.load(cached_spec()).is_ok());
  for (int i = 0; i < 5; ++i) runs_for(sample(7, 2));
  const VersionStatistics stats = statistics();
  EXPECT_EQ(stats.success.count, 5U);
  EXPECT_EQ(stats.queue.count, 5U);
  EXPECT_EQ(stats.cache_hit.count, 4U);
  EXPECT_EQ(stats.cache_miss.count, 1U);
  EXPECT_GT(stats.cache_hit.ns, 0U);
  EXPECT_GT(stats.cache_miss.ns, 0U);
  EXPECT_EQ(stats.inference_count, 2U);  // rows that ran
  EXPECT_EQ(stats.execution_count, 1U);
  EXPECT_EQ(stats.compute_infer.count, 1U);
  EXPECT_EQ(stats.compute_output.count, 1U);
  EXPECT_NE(stats.last_inference_ms, 0);
  EXPECT_EQ(stats.pending, 0);
}

TEST_F(ResponseCacheTest, InferTakesAHitToo) {
  ASSERT_TRUE(engine_.load(cached_spec()).is_ok());
  const std::size_t warm_up = gate_.ran_rows.size();
  for (int i = 0; i < 3; ++i) {
    RowRequest& request = sample(7);
    const auto response = submitter_.infer(request.request);
    ASSERT_TRUE(response.is_ok());
    EXPECT_TRUE(request.echoed());
  }
  EXPECT_EQ(gate_.ran_rows.size(), warm_up + 1U);
}

TEST_F(ResponseCacheTest, OnlyModelsThatAskForIt) {
  LoadSpec plain = cached_spec();
  plain.response_cache = false;
  ASSERT_TRUE(engine_.load(plain).is_ok());
  EXPECT_EQ(runs_for(sample(7)), 1);
  EXPECT_EQ(runs_for(sample(7)), 1);
  EXPECT_EQ(statistics().cache_miss.count, 0U);
  EXPECT_EQ(engine_.response_cache().entries, 0U);
}

TEST_F(ResponseCacheTest, AnotherLoadOfTheVersionStartsEmpty) {
  ASSERT_TRUE(engine_.load(cached_spec()).is_ok());
  EXPECT_EQ(runs_for(sample(7)), 1);
  EXPECT_EQ(engine_.response_cache().entries, 1U);
  samples_.back().request.reset();                   // its handle would keep the old one
  ASSERT_TRUE(engine_.load(cached_spec()).is_ok());  // replaces
  EXPECT_EQ(engine_.response_cache().entries, 0U);
  EXPECT_EQ(engine_.response_cache().bytes, 0U);
  EXPECT_EQ(runs_for(sample(7)), 1);
  RowRequest& kept = sample(7);
  EXPECT_EQ(runs_for(kept), 0);
  kept.request.version
      ->release();  // as an owner that keeps a response over the unload may not, but the bytes may
  kept.request.version = nullptr;
  for (RowRequest& each : samples_) {
    if (&each != &kept) each.request.reset();
  }
  ASSERT_TRUE(engine_.unload("echo", 1).is_ok());
  EXPECT_EQ(engine_.response_cache().entries, 0U);
  EXPECT_TRUE(kept.echoed());
}

TEST_F(ResponseCacheTest, VersionsDoNotShare) {
  LoadSpec spec = cached_spec();
  ASSERT_TRUE(engine_.load(spec).is_ok());
  spec.version = 2;
  ASSERT_TRUE(engine_.load(spec).is_ok());
  RowRequest& one = sample(7);
  one.request.model_version = "1";
  RowRequest& two = sample(7);
  two.request.model_version = "2";
  EXPECT_EQ(runs_for(one), 1);
  EXPECT_EQ(runs_for(two), 1);
}

TEST_F(ResponseCacheTest, WhatDoesNotChangeTheAnswerDoesNotMatter) {
  ASSERT_TRUE(engine_.load(cached_spec()).is_ok());
  EXPECT_EQ(runs_for(sample(7)), 1);
  RowRequest& other = sample(7);
  other.request.id = "another";
  other.request.priority = 3;
  other.request.deadline = monotonic_now() + 60 * kSecond;
  other.request.queue_timeout_ns = kSecond;
  other.request.requested_outputs.push_back({"y", 2, true});
  other.request.parameters.push_back({"binary_data_output", true});
  other.request.parameters.push_back({"sequence_id", std::int64_t{0}});
  EXPECT_EQ(runs_for(other), 0);
}

TEST_F(ResponseCacheTest, ParametersMatterAndSequencesAreLeftAlone) {
  ASSERT_TRUE(engine_.load(cached_spec()).is_ok());
  const auto with = [&](const Parameter& parameter) -> RowRequest& {
    RowRequest& request = sample(7);
    request.request.parameters.push_back(parameter);
    return request;
  };
  EXPECT_EQ(runs_for(with({"tone", std::string_view("dark")})), 1);
  EXPECT_EQ(runs_for(with({"tone", std::string_view("light")})), 1);
  EXPECT_EQ(runs_for(with({"tone", std::string_view("dark")})), 0);
  const std::uint64_t looked_up = statistics().cache_miss.count + statistics().cache_hit.count;
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(runs_for(with({"sequence_id", std::int64_t{5}})), 1);
    EXPECT_EQ(runs_for(with({"sequence_id", std::string_view("five")})), 1);
    EXPECT_EQ(runs_for(with({"sequence_start", true})), 1);
  }
  EXPECT_EQ(statistics().cache_miss.count + statistics().cache_hit.count, looked_up);
}

TEST_F(ResponseCacheTest, FailuresAndLateAnswersAreNotKept) {
  ASSERT_TRUE(engine_.load(cached_spec()).is_ok());
  gate_.fault = Fault::kStartFails;
  RowRequest& failed = sample(7);
  runs_for(failed);
  EXPECT_EQ(failed.request.response.status.code(), Code::kInternal);
  gate_.fault = Fault::kNone;
  EXPECT_EQ(engine_.response_cache().entries, 0U);
  EXPECT_EQ(runs_for(sample(7)), 1);
}

TEST_F(ResponseCacheTest, AHitNeedsNoPlaceInAFullQueue) {
  LoadSpec spec = cached_spec("gate", 1);
  spec.limits.max_queue_requests = 1;
  ASSERT_TRUE(engine_.load(spec).is_ok());
  EXPECT_EQ(runs_for(sample(7)), 1);
  gate_.open = false;
  RowRequest& running = sample(1);
  ASSERT_TRUE(submitter_.submit(running.request).is_ok());
  submitter_.flush();
  Batch& batch = gate_.gate.next();
  RowRequest& waiting = sample(2);
  ASSERT_TRUE(submitter_.submit(waiting.request).is_ok());
  RowRequest& refused = sample(3);
  EXPECT_EQ(submitter_.submit(refused.request).code(), Code::kUnavailable);
  EXPECT_EQ(refused.request.tap, nullptr);
  EXPECT_EQ(runs_for(sample(7)), 0);
  gate_.open = true;
  echo(batch);
  EXPECT_EQ(wait_for(completions_, 2).size(), 2U);
}

TEST_F(ResponseCacheTest, EqualRequestsAtTheSameTimeBothRunAndOneIsKept) {
  ASSERT_TRUE(engine_.load(cached_spec("gate", 4)).is_ok());
  RowRequest& a = sample(7);
  RowRequest& b = sample(7);
  ASSERT_TRUE(submitter_.submit(a.request).is_ok());
  ASSERT_TRUE(submitter_.submit(b.request).is_ok());
  submitter_.flush();
  EXPECT_EQ(wait_for(completions_, 2).size(), 2U);
  EXPECT_TRUE(a.echoed() && b.echoed());
  EXPECT_EQ(engine_.response_cache().entries, 1U);
  EXPECT_EQ(statistics().cache_miss.count, 2U);
}

TEST_F(ResponseCacheTest, WithPreservedOrderAHitDoesNotOvertake) {
  LoadSpec spec = cached_spec("gate", 1);
  spec.queue.preserve_ordering = true;
  ASSERT_TRUE(engine_.load(spec).is_ok());
  EXPECT_EQ(runs_for(sample(7)), 1);
  EXPECT_EQ(runs_for(sample(7)), 0);
  gate_.open = false;
  RowRequest& slow = sample(1);
  RowRequest& known = sample(7);
  ASSERT_TRUE(submitter_.submit(slow.request).is_ok());
  submitter_.flush();
  Batch& batch = gate_.gate.next();
  ASSERT_TRUE(submitter_.submit(known.request).is_ok());
  submitter_.flush();
  EXPECT_EQ(completions_.take_all(), nullptr);
  gate_.open = true;
  echo(batch);
  const auto answers = wait_for(completions_, 2);
  ASSERT_EQ(answers.size(), 2U);
  EXPECT_EQ(answers[0]->request, &slow.request);
  EXPECT_EQ(answers[1]->request, &known.request);
}

TEST_F(ResponseCacheTest, ACancelledRequestIsAnsweredAsSuch) {
  ASSERT_TRUE(engine_.load(cached_spec()).is_ok());
  EXPECT_EQ(runs_for(sample(7)), 1);
  RowRequest& gone = sample(7);
  gone.request.cancel();
  EXPECT_EQ(runs_for(gone), 0);
  EXPECT_EQ(gone.request.response.status.code(), Code::kCancelled);
}

TEST_F(ResponseCacheTest, RequestsOfOtherShapesAndOutputsDiffer) {
  LoadSpec spec = cached_spec("gate", 8);
  spec.inputs = {{"x", DType::kInt32, Shape{-1, -1}, false}, {"s", DType::kBytes, Shape{-1, -1}, false}};
  spec.outputs = {{"y", DType::kInt32, Shape{-1, -1}, false}, {"t", DType::kBytes, Shape{-1, -1}, false}};
  ASSERT_TRUE(engine_.load(spec).is_ok());
  const std::vector<std::int32_t> numbers{1, 2, 3, 4};
  const auto ab_c = serialized({"ab", "c"});
  const auto a_bc = serialized({"a", "bc"});
  const auto make = [&](const Shape& shape, const std::vector<std::byte>& text,
                        std::vector<RequestedOutput> outputs = {}) -> RowRequest& {
    RowRequest& request = sample(0);
    request.request.inputs.clear();
    // In the other order than the signature: that makes no difference.
    request.request.inputs.push_back({"s", DType::kBytes, Shape{shape[0], 2 / shape[0]}, text});
    request.request.inputs.push_back({"x", DType::kInt32, shape, bytes_of(numbers)});
    request.request.requested_outputs = std::move(outputs);
    return request;
  };
  EXPECT_EQ(runs_for(make({1, 4}, ab_c)), 1);
  EXPECT_EQ(runs_for(make({1, 4}, a_bc)), 1);
  EXPECT_EQ(runs_for(make({2, 2}, ab_c)), 1);
  EXPECT_EQ(runs_for(make({1, 4}, ab_c, {{"t"}})), 1);
  EXPECT_EQ(runs_for(make({1, 4}, ab_c, {{"t"}, {"y"}})), 1);
  RowRequest& swapped = make({1, 4}, ab_c, {{"t"}, {"y"}});
  EXPECT_EQ(runs_for(swapped), 0);
  const auto& outputs = swapped.request.response.outputs;
  ASSERT_EQ(outputs.size(), 2U);
  EXPECT_EQ(outputs[0].index, 1);
  EXPECT_TRUE(std::ranges::equal(outputs[0].data, ab_c));
  EXPECT_TRUE(std::ranges::equal(outputs[1].data, bytes_of(numbers)));
  EXPECT_EQ(runs_for(make({1, 4}, ab_c, {{"y"}, {"t"}})), 0) << "all of them in the signature's order";
}

// --- bytes ---------------------------------------------------------------------------------------------------------------

// Bytes that an answer of so many columns is charged with.
std::uint64_t charge_of(std::int64_t columns) {
  Engine engine(with_cache(kRoomy));
  LoadSpec spec = identity_spec(4, 1, columns);
  spec.response_cache = true;
  EXPECT_TRUE(engine.load(spec).is_ok());
  CompletionQueue completions(CompletionQueue::Wake::kFutex);
  Submitter submitter(engine);
  RowRequest request(&completions, 1, 1, columns);
  EXPECT_TRUE(submitter.infer(request.request).is_ok());
  request.request.reset();
  return engine.response_cache().bytes;
}

TEST(ResponseCacheBytes, AnAnswerCountsWithInputsAndOutputs) {
  const std::uint64_t small = charge_of(16);
  EXPECT_GT(small, 2U * 16 * sizeof(std::int32_t));
  EXPECT_LT(small, 1200U);
  EXPECT_EQ(charge_of(16 + 1024), small + 2U * 1024 * sizeof(std::int32_t));
}

class SmallCacheTest : public ResponseCacheTest {
 protected:
  static constexpr std::uint64_t kAnswers = 4;
  SmallCacheTest() : ResponseCacheTest(kAnswers * charge_of(16)) {
    LoadSpec spec = identity_spec(4, 1, 16);
    spec.backend = "gate";
    spec.response_cache = true;
    EXPECT_TRUE(engine_.load(spec).is_ok());
  }
  int ask(std::int32_t seed) { return runs_for(sample(seed, 1, 16)); }
};

TEST_F(SmallCacheTest, TheOneThatWasUsedLongestAgoGoes) {
  for (std::int32_t i = 0; i < 4; ++i) EXPECT_EQ(ask(i), 1);
  EXPECT_EQ(engine_.response_cache().entries, kAnswers);
  EXPECT_EQ(engine_.response_cache().bytes, engine_.response_cache().capacity_bytes);
  EXPECT_EQ(ask(0), 0);  // the newest again
  EXPECT_EQ(ask(4), 1);  // 1 goes
  EXPECT_EQ(engine_.response_cache().entries, kAnswers);
  EXPECT_EQ(engine_.response_cache().evictions, 1U);
  EXPECT_EQ(ask(0), 0);
  EXPECT_EQ(ask(2), 0);
  EXPECT_EQ(ask(3), 0);
  EXPECT_EQ(ask(4), 0);
  EXPECT_EQ(ask(1), 1);
}

TEST_F(SmallCacheTest, AnAnswerThatWasEvictedIsStillReadable) {
  RowRequest& held = sample(0, 1, 16);
  ask(0);
  EXPECT_EQ(runs_for(held), 0);
  for (std::int32_t i = 1; i < 20; ++i) ask(i);
  EXPECT_TRUE(held.echoed());
}

// At the limit it is kept, one byte below the answer's size it is not.
TEST(ResponseCacheBytes, AnAnswerLargerThanTheCacheIsNotKept) {
  const std::uint64_t charge = charge_of(16);
  for (const std::int64_t less : {-1, 0, 1}) {
    Engine engine(with_cache(charge - static_cast<std::uint64_t>(less)));
    LoadSpec spec = identity_spec(4, 1, 16);
    spec.response_cache = true;
    ASSERT_TRUE(engine.load(spec).is_ok());
    CompletionQueue completions(CompletionQueue::Wake::kFutex);
    Submitter submitter(engine);
    RowRequest request(&completions, 1, 1, 16);
    ASSERT_TRUE(submitter.infer(request.request).is_ok());
    EXPECT_TRUE(request.echoed());
    request.request.reset();
    EXPECT_EQ(engine.response_cache().entries, less > 0 ? 0U : 1U);
    EXPECT_EQ(engine.response_cache().too_large, less > 0 ? 1U : 0U);
  }
}

std::string g_logged;  // NOLINT: what the sink, a plain function, writes to

TEST(ResponseCacheOff, AModelThatAsksForItIsServedUncachedWithAWarning) {
  g_logged.clear();
  const LogSink before = set_log_sink([](LogLevel level, std::string_view text) {
    if (level == LogLevel::kWarning) g_logged += text;
  });
  {
    Engine engine;
    LoadSpec spec = identity_spec();
    spec.response_cache = true;
    ASSERT_TRUE(engine.load(spec).is_ok());
    CompletionQueue completions(CompletionQueue::Wake::kFutex);
    Submitter submitter(engine);
    RowRequest request(&completions);
    ASSERT_TRUE(submitter.infer(request.request).is_ok());
    request.request.reset();
    EXPECT_EQ(engine.statistics("echo", 1).value().cache_miss.count, 0U);
    EXPECT_EQ(engine.response_cache().capacity_bytes, 0U);
  }
  set_log_sink(before);
  EXPECT_NE(g_logged.find("model 'echo' version 1 asks for the response cache"), std::string::npos)
      << g_logged;
}

// --- keys ----------------------------------------------------------------------------------------------------------------

TEST(RequestKeyTest, EqualsOnlyItself) {
  CompletionQueue completions(CompletionQueue::Wake::kFutex);
  const Signature signature = row_signature(8, 16);
  RowRequest request(&completions, 2, 3, 16);
  prepare(request.request, signature);
  std::vector<std::byte> copy;
  std::uint64_t fingerprint = 0;
  {
    const RequestKey key(request.request);
    copy.resize(key.bytes());
    key.copy_to(copy.data());
    fingerprint = key.fingerprint(1);
    EXPECT_TRUE(key.equals(copy));
    EXPECT_NE(fingerprint, key.fingerprint(2));
  }
  for (std::int32_t& value : request.values) {
    value ^= 1 << 30;
    const RequestKey key(request.request);
    EXPECT_FALSE(key.equals(copy));
    EXPECT_NE(key.fingerprint(1), fingerprint);
    value ^= 1 << 30;
  }
  for (std::size_t i = 0; i < copy.size(); ++i) {
    copy[i] ^= std::byte{1};
    EXPECT_FALSE(RequestKey(request.request).equals(copy)) << i;
    copy[i] ^= std::byte{1};
  }
  copy.push_back(std::byte{0});
  EXPECT_FALSE(RequestKey(request.request).equals(copy));
}

// --- under load ------------------------------------------------------------------------------------------------------------

// Few different requests, a cache that is too small for them, submitters on threads of their own, reloads meanwhile: every
// answer is the right one.
TEST(ResponseCacheStress, ThreadsEvictionsAndReloads) {
  Engine engine(with_cache(5 * charge_of(2)));
  LoadSpec spec = identity_spec(8, 2);
  spec.response_cache = true;
  ASSERT_TRUE(engine.load(spec).is_ok());
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> answered{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      CompletionQueue completions(CompletionQueue::Wake::kFutex);
      Submitter submitter(engine);
      std::deque<RowRequest> samples;
      for (int i = 0; i < 8; ++i) samples.emplace_back(&completions);
      for (int round = 0; !stop.load(); ++round) {
        std::size_t out = 0;
        for (std::size_t i = 0; i < samples.size(); ++i) {
          samples[i].fill(1, static_cast<std::int32_t>((static_cast<std::size_t>(t + round) + i) % 10));
          samples[i].request.completions = &completions;
          out += submitter.submit(samples[i].request).is_ok() ? 1 : 0;
        }
        submitter.flush();
        wait_for(completions, out);
        for (RowRequest& sample : samples) {
          if (sample.request.version != nullptr) {
            EXPECT_TRUE(sample.echoed());
            ++answered;
          }
          sample.request.reset();
        }
      }
    });
  }
  for (int i = 0; i < 10; ++i) {
    const std::uint64_t seen = answered.load();
    while (answered.load() < seen + 500) std::this_thread::yield();
    ASSERT_TRUE(engine.load(spec).is_ok());
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(engine.response_cache().bytes, engine.response_cache().capacity_bytes);
  ASSERT_TRUE(engine.unload("echo", 1).is_ok());
  EXPECT_EQ(engine.response_cache().entries, 0U);
  EXPECT_EQ(engine.response_cache().bytes, 0U);
}

}  // namespace
}  // namespace fastserve
