// Load, resolve, submit, unload: one thing at a time. Under load: stress_test.cc.
#include "engine/engine.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <deque>
#include <thread>

#include "engine/loader_priority.h"
#include "support/gate_backend.h"
#include "support/samples.h"

namespace fastserve {
namespace {

class EngineTest : public ::testing::Test {
 protected:
  EngineTest() { engine_.backends().add(gate_); }
  ~EngineTest() override {
    for (RowRequest& sample : requests_) sample.request.reset();
  }
  static LoadSpec gate_spec(std::int64_t max_rows = 4, int instances = 1) {
    LoadSpec spec = identity_spec(max_rows, instances);
    spec.backend = "gate";
    return spec;
  }
  RowRequest& sample(std::int64_t rows = 1) {
    return requests_.emplace_back(&completions_, rows, static_cast<int>(requests_.size()));
  }
  RowRequest& submit(std::int64_t rows = 1) {
    RowRequest& out = sample(rows);
    EXPECT_TRUE(submitter_.submit(out.request).is_ok());
    submitter_.flush();
    return out;
  }
  VersionStatus status(std::int64_t version = 1) const {
    for (const VersionStatus& s : engine_.status()) {
      if (s.version == version) return s;
    }
    return {};
  }

  GateBackend gate_;
  CompletionQueue completions_{CompletionQueue::Wake::kFutex};
  std::deque<RowRequest> requests_;
  Engine engine_;
  Submitter submitter_{engine_};
};

TEST_F(EngineTest, LoadsServesAndUnloads) {
  ASSERT_TRUE(engine_.load(identity_spec()).is_ok());
  EXPECT_TRUE(engine_.ready("echo", ""));
  EXPECT_TRUE(engine_.ready("echo", "1"));
  EXPECT_FALSE(engine_.ready("echo", "2"));
  RowRequest& request = submit(3);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_TRUE(request.echoed());
  EXPECT_EQ(request.request.version->number_text, "1");
  request.request.reset();
  ASSERT_TRUE(engine_.unload("echo", 1).is_ok());
  EXPECT_TRUE(engine_.status().empty());
  EXPECT_EQ(engine_.unload("echo", 1).code(), Code::kNotFound);
  EXPECT_EQ(submitter_.submit(sample().request).code(), Code::kNotFound);
}

TEST_F(EngineTest, InferBlocksAndAnswers) {
  ASSERT_TRUE(engine_.load(identity_spec()).is_ok());
  for (int i = 0; i < 100; ++i) {
    RowRequest& request = sample(1 + i % 8);
    const auto response = submitter_.infer(request.request);
    ASSERT_TRUE(response.is_ok()) << response.status().message();
    EXPECT_EQ(response.value(), &request.request.response);
    EXPECT_TRUE(request.echoed());
  }
}

TEST_F(EngineTest, InferWantsAQueueThatItCanBlockOn) {
  ASSERT_TRUE(engine_.load(identity_spec()).is_ok());
  CompletionQueue loop(CompletionQueue::Wake::kEventFd);
  RowRequest request(&loop);
  EXPECT_EQ(submitter_.infer(request.request).status().code(), Code::kInvalidArgument);
}

TEST_F(EngineTest, ARefusedRequestStaysTheCallersAndTheNextIsServed) {
  ASSERT_TRUE(engine_.load(identity_spec()).is_ok());
  RowRequest& wrong = sample();
  const auto expect = [&](Code code, std::string_view part) {
    const Status got = submitter_.submit(wrong.request);
    EXPECT_EQ(got.code(), code);
    EXPECT_NE(got.message().find(part), std::string::npos) << got.message();
    EXPECT_EQ(wrong.request.version, nullptr);
    wrong.request.reset();
    wrong.fill(1, 1);
  };
  wrong.request.model_name = "nobody";
  expect(Code::kNotFound, "Request for unknown model: 'nobody' is not found");
  wrong.request.model_version = "9";
  expect(Code::kNotFound, "version 9 is not found");
  wrong.request.requested_outputs = {{"z"}};
  expect(Code::kInvalidArgument, "unexpected inference output 'z' for model 'echo'");
  wrong.request.requested_outputs = {{"y"}, {"y"}};
  expect(Code::kInvalidArgument, "given twice");
  wrong.request.inputs[0].dtype = DType::kFp32;
  expect(Code::kInvalidArgument, "data-type is 'FP32'");
  wrong.fill(9, 1);
  expect(Code::kInvalidArgument, "batch-size must be <= 8");
  wrong.request.deadline = monotonic_now();
  expect(Code::kDeadlineExceeded, "Deadline");
  const VersionStatistics none = engine_.statistics("echo", 1).value();
  EXPECT_EQ(none.fail.count + none.success.count + none.rejected.count, 0U)
      << "client faults are no statistics";
  EXPECT_EQ(none.in_flight, 0);
  EXPECT_TRUE(submitter_.infer(sample().request).is_ok());
}

TEST_F(EngineTest, FullQueueIsUnavailableAtOnce) {
  gate_.open = true;
  LoadSpec spec = gate_spec();
  spec.limits.max_queue_requests = 2;
  ASSERT_TRUE(engine_.load(spec).is_ok());
  gate_.open = false;
  submit(4);
  Batch& running = gate_.gate.next();
  submit(1);
  submit(1);
  const Status full = submitter_.submit(sample().request);
  EXPECT_EQ(full.code(), Code::kUnavailable);
  EXPECT_EQ(full.message(), "Exceeds maximum queue size");
  VersionStatistics s = engine_.statistics("echo", 1).value();
  EXPECT_EQ(s.rejected.count, 1U);
  EXPECT_EQ(s.pending, 2);
  EXPECT_EQ(s.in_flight, 3);
  echo(running);
  echo(gate_.gate.next());
  EXPECT_EQ(wait_for(completions_, 3).size(), 3U);
}

TEST_F(EngineTest, ACancelledRequestThatWaitsIsAnsweredWhileTheInstanceIsBusy) {
  ASSERT_TRUE(engine_.load(gate_spec()).is_ok());
  gate_.open = false;
  submit(4);
  Batch& running = gate_.gate.next();
  RowRequest& waiting = submit();
  waiting.request.cancel();
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_EQ(waiting.request.response.status.code(), Code::kCancelled);
  EXPECT_EQ(engine_.statistics("echo", 1).value().cancel.count, 1U);
  echo(running);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_TRUE(requests_[0].echoed());
}

TEST_F(EngineTest, DeadlinesAndQueueTimeoutsOfWaitingRequests) {
  ASSERT_TRUE(engine_.load(gate_spec()).is_ok());
  gate_.open = false;
  submit(4);
  Batch& running = gate_.gate.next();
  RowRequest& deadline = sample();
  deadline.request.deadline = monotonic_now() + 3 * kMillisecond;
  RowRequest& timeout = sample();
  timeout.request.queue_timeout_ns = 2 * kMillisecond;
  ASSERT_TRUE(submitter_.submit(deadline.request).is_ok());
  ASSERT_TRUE(submitter_.submit(timeout.request).is_ok());
  submitter_.flush();
  ASSERT_EQ(wait_for(completions_, 2).size(), 2U);
  EXPECT_EQ(deadline.request.response.status.code(), Code::kDeadlineExceeded);
  EXPECT_EQ(timeout.request.response.status.code(), Code::kUnavailable);
  EXPECT_EQ(timeout.request.response.status.message(), "Request timeout expired");
  gate_.open = true;
  echo(running);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_EQ(engine_.statistics("echo", 1).value().execution_count, 1U) << "expired work never runs";
}

TEST_F(EngineTest, AFailedLoadSaysWhyAndTheOldVersionServesOn) {
  ASSERT_TRUE(engine_.load(gate_spec()).is_ok());
  gate_.fault = Fault::kLoadFails;
  EXPECT_EQ(engine_.load(gate_spec()).code(), Code::kInvalidArgument);
  gate_.fault = Fault::kNone;
  EXPECT_EQ(status().state, VersionState::kReady);
  EXPECT_NE(status().reason.find("got garbage"), std::string::npos);
  EXPECT_TRUE(submitter_.infer(sample().request).is_ok());

  LoadSpec second = gate_spec();
  second.version = 2;
  gate_.fault = Fault::kLoadThrows;
  EXPECT_EQ(engine_.load(second).code(), Code::kInternal);
  gate_.fault = Fault::kNone;
  EXPECT_EQ(status(2).state, VersionState::kFailed);
  EXPECT_NE(status(2).reason.find("the file bites"), std::string::npos);
  RowRequest& named = sample();
  named.request.model_version = "2";
  EXPECT_EQ(submitter_.submit(named.request).code(), Code::kUnavailable);
  EXPECT_TRUE(engine_.unload("echo", 2).is_ok());
  EXPECT_EQ(engine_.status().size(), 1U);
}

TEST_F(EngineTest, FaultsOfTheSpec) {
  const auto code_of = [&](auto change) {
    LoadSpec spec = identity_spec();
    change(spec);
    return engine_.load(spec).code();
  };
  EXPECT_EQ(code_of([](LoadSpec& s) { s.model = ""; }), Code::kInvalidArgument);
  EXPECT_EQ(code_of([](LoadSpec& s) { s.version = -1; }), Code::kInvalidArgument);
  EXPECT_EQ(code_of([](LoadSpec& s) { s.limits.max_queue_requests = -1; }), Code::kInvalidArgument);
  EXPECT_EQ(code_of([](LoadSpec& s) { s.limits.max_queue_delay_ns = -1; }), Code::kInvalidArgument);
  EXPECT_EQ(code_of([](LoadSpec& s) { s.backend = "vapor"; }), Code::kUnimplemented);
  EXPECT_EQ(code_of([](LoadSpec& s) { s.backend = ""; }), Code::kInvalidArgument);
  EXPECT_EQ(code_of([](LoadSpec& s) { s.parameters["nonsense"] = "1"; }), Code::kInvalidArgument);
}

TEST_F(EngineTest, TheHighestReadyVersionServesRequestsThatNameNone) {
  for (const std::int64_t version : {2, 10, 9}) {
    LoadSpec spec = identity_spec();
    spec.version = version;
    ASSERT_TRUE(engine_.load(spec).is_ok());
  }
  RowRequest& request = sample();
  ASSERT_TRUE(submitter_.infer(request.request).is_ok());
  EXPECT_EQ(request.request.version->number, 10);
  request.request.reset();
  ASSERT_TRUE(engine_.unload("echo", 10).is_ok());
  request.fill(1, 3);
  request.request.completions = &completions_;
  ASSERT_TRUE(submitter_.infer(request.request).is_ok());
  EXPECT_EQ(request.request.version->number, 9);
  const auto handle = engine_.resolve("echo", "2");
  ASSERT_TRUE(handle.is_ok());
  EXPECT_EQ(handle.value()->handles(), 1);
  handle.value()->release();
}

TEST_F(EngineTest, LoadingTwiceAtOnceIsRefused) {
  std::atomic<bool> loading{false};
  std::atomic<bool> go_on{false};
  std::thread loader([&] {
    EXPECT_TRUE(engine_
                    .load(gate_spec(),
                          [&](double, std::string_view what) {
                            if (what != "reading") return;
                            loading = true;
                            while (!go_on) std::this_thread::yield();
                          })
                    .is_ok());
  });
  while (!loading) std::this_thread::yield();
  EXPECT_EQ(status().state, VersionState::kLoading);
  EXPECT_EQ(status().reason, "reading");
  EXPECT_EQ(status().progress, 0.5);
  EXPECT_EQ(engine_.load(gate_spec()).code(), Code::kAlreadyExists);
  EXPECT_EQ(engine_.unload("echo", 1).code(), Code::kFailedPrecondition);
  RowRequest& named = sample();
  named.request.model_version = "1";
  EXPECT_EQ(submitter_.submit(named.request).code(), Code::kUnavailable);
  go_on = true;
  loader.join();
  EXPECT_EQ(status().state, VersionState::kReady);
  EXPECT_EQ(status().platform, "gate");
  EXPECT_EQ(status().properties.at("device"), "GATE");
}

TEST_F(EngineTest, UnloadAnswersWhatWasAdmittedAndRefusesTheRest) {
  ASSERT_TRUE(engine_.load(gate_spec()).is_ok());
  gate_.open = false;
  submit(4);
  Batch& running = gate_.gate.next();
  submit(4);
  std::thread loader([&] { EXPECT_TRUE(engine_.unload("echo", 1).is_ok()); });
  while (engine_.ready("echo", "1")) std::this_thread::yield();
  EXPECT_EQ(submitter_.submit(sample().request).code(), Code::kNotFound);
  EXPECT_EQ(engine_.unload("echo", 1).code(), Code::kNotFound) << "somebody unloads it already";
  echo(running);
  echo(gate_.gate.next());
  ASSERT_EQ(wait_for(completions_, 2).size(), 2U);
  EXPECT_EQ(status().state, VersionState::kDraining);
  for (RowRequest& request : requests_) {
    EXPECT_EQ(request.echoed(), request.request.version != nullptr);
    request.request.reset();
  }
  loader.join();
  EXPECT_TRUE(engine_.status().empty());
}

TEST_F(EngineTest, AfterTheDrainTimeWaitingRequestsAreRefusedAndRunningOnesFinish) {
  ASSERT_TRUE(engine_.load(gate_spec()).is_ok());
  gate_.open = false;
  RowRequest& run = submit(4);
  Batch& running = gate_.gate.next();
  RowRequest& wait = submit(4);
  std::thread loader([&] { EXPECT_TRUE(engine_.unload("echo", 1, kMillisecond).is_ok()); });
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_EQ(wait.request.response.status.code(), Code::kUnavailable);
  echo(running);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_TRUE(run.echoed());
  run.request.reset();
  wait.request.reset();
  loader.join();
}

TEST_F(EngineTest, DrainWaitsForEveryAnswerAndRefusesFromThenOn) {
  ASSERT_TRUE(engine_.load(gate_spec()).is_ok());
  gate_.open = false;
  RowRequest& request = submit();
  Batch& running = gate_.gate.next();
  EXPECT_FALSE(engine_.drain(kMillisecond));
  EXPECT_FALSE(engine_.ready("echo", ""));
  EXPECT_EQ(submitter_.submit(sample().request).code(), Code::kUnavailable);
  EXPECT_EQ(engine_.load(gate_spec()).code(), Code::kUnavailable);
  echo(running);
  EXPECT_TRUE(engine_.drain(kNever));
  EXPECT_EQ(completions_.take_all(), &request.request.response) << "answered before drain returns";
}

TEST_F(EngineTest, KeptResultsNeitherStarveTheInstanceNorDieWithTheModel) {
  ASSERT_TRUE(engine_.load(identity_spec()).is_ok());
  std::vector<BatchRef> kept;
  std::vector<std::span<const std::byte>> data;
  for (int i = 0; i < 50; ++i) {
    RowRequest& request = sample();
    ASSERT_TRUE(submitter_.infer(request.request).is_ok());
    data.push_back(request.request.response.outputs[0].data);
    kept.push_back(std::move(request.request.response.batch));
    request.request.reset();
  }
  ASSERT_TRUE(engine_.unload("echo", 1).is_ok());
  for (std::size_t i = 0; i < data.size(); ++i) {
    EXPECT_EQ(std::memcmp(data[i].data(), requests_[i].values.data(), data[i].size()), 0);
  }
}

TEST_F(EngineTest, StatisticsAddUp) {
  ASSERT_TRUE(engine_.load(identity_spec()).is_ok());
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(submitter_.infer(sample(3).request).is_ok());
  const VersionStatistics s = engine_.statistics("echo", 1).value();
  EXPECT_EQ(s.inference_count, 30U);
  EXPECT_EQ(s.execution_count, 10U);
  EXPECT_EQ(s.success.count, 10U);
  EXPECT_EQ(s.queue.count, 10U);
  ASSERT_EQ(s.batches.size(), 1U);
  EXPECT_EQ(s.batches[0].rows, 3);
  EXPECT_EQ(s.batches[0].compute_infer.count, 10U);
  EXPECT_EQ(s.pending, 0);
  EXPECT_GT(s.last_inference_ms, 1'600'000'000'000);
  EXPECT_GE(s.success.ns, s.queue.ns + s.compute_input.ns + s.compute_infer.ns);
  for (const char* stage : {"queue", "gather", "execute", "total"}) {
    const Histogram& h = s.stage_seconds.at(stage);
    ASSERT_EQ(h.counts.size(), h.upper_bounds.size() + 1);
    std::uint64_t all = 0;
    for (const std::uint64_t count : h.counts) all += count;
    EXPECT_EQ(all, 10U) << stage;
  }
  EXPECT_EQ(engine_.statistics("echo", 4).status().code(), Code::kNotFound);
}

TEST_F(EngineTest, TwoEnginesKnowNothingOfEachOther) {
  Engine other;
  ASSERT_TRUE(other.load(identity_spec()).is_ok());
  EXPECT_FALSE(engine_.ready("echo", ""));
  Submitter moved = Submitter(other);
  EXPECT_TRUE(moved.infer(sample().request).is_ok());
  requests_.back().request.reset();
}

TEST(LoaderPriority, IsLowWhileItLivesAndThreadsBornMeanwhileRecover) {
  const int before = ::getpriority(PRIO_PROCESS, 0);
  std::atomic<pid_t> born{0};
  std::atomic<bool> stop{false};
  std::thread thread;
  {
    const LoaderPriority low(5);
    if (!low.lowered()) GTEST_SKIP() << "this process may not raise a priority again, so nothing is lowered";
    EXPECT_EQ(::getpriority(PRIO_PROCESS, 0), before + 5);
    thread = std::thread([&] {
      born = ::gettid();
      while (!stop) std::this_thread::yield();
    });
    while (born == 0) std::this_thread::yield();
    EXPECT_EQ(::getpriority(PRIO_PROCESS, static_cast<id_t>(born)), before + 5);
  }
  EXPECT_EQ(::getpriority(PRIO_PROCESS, 0), before);
  EXPECT_EQ(::getpriority(PRIO_PROCESS, static_cast<id_t>(born)), before);
  stop = true;
  thread.join();
}

TEST(LoaderPriority, WaitsForIdleTimeUntilItIsToldToHurry) {
  const int before = ::getpriority(PRIO_PROCESS, 0);
  std::atomic<pid_t> born{0};
  std::atomic<bool> stop{false};
  std::thread thread;
  {
    const LoaderPriority low(5, true);
    if (!low.lowered()) GTEST_SKIP() << "this process may not raise a priority again, so nothing is lowered";
    EXPECT_EQ(::sched_getscheduler(0), SCHED_IDLE);
    thread = std::thread([&] {
      born = ::gettid();
      while (!stop) std::this_thread::yield();
    });
    while (born == 0) std::this_thread::yield();
    EXPECT_EQ(::sched_getscheduler(born), SCHED_IDLE);
    LoaderPriority::hurry(3600 * kSecond);
    EXPECT_EQ(::sched_getscheduler(0), SCHED_IDLE) << "it has not waited for an hour";
    LoaderPriority::hurry(0);
    for (const pid_t one : {::gettid(), born.load()}) {
      EXPECT_EQ(::sched_getscheduler(one), SCHED_OTHER);
      EXPECT_EQ(::getpriority(PRIO_PROCESS, static_cast<id_t>(one)), before + 5);
    }
  }
  for (const pid_t one : {::gettid(), born.load()}) {
    EXPECT_EQ(::sched_getscheduler(one), SCHED_OTHER);
    EXPECT_EQ(::getpriority(PRIO_PROCESS, static_cast<id_t>(one)), before);
  }
  stop = true;
  thread.join();
}

TEST(LoaderPriority, ThreadsOfAnIdleLoadRecoverWhenItEndsUnhurried) {
  std::atomic<pid_t> born{0};
  std::atomic<bool> stop{false};
  std::thread thread;
  {
    const LoaderPriority low(5, true);
    if (!low.lowered()) GTEST_SKIP() << "this process may not raise a priority again, so nothing is lowered";
    thread = std::thread([&] {
      born = ::gettid();
      while (!stop) std::this_thread::yield();
    });
    while (born == 0) std::this_thread::yield();
  }
  EXPECT_EQ(::sched_getscheduler(0), SCHED_OTHER);
  EXPECT_EQ(::sched_getscheduler(born), SCHED_OTHER);
  LoaderPriority::hurry(0);  // of nobody
  stop = true;
  thread.join();
}

TEST(LoaderPriority, WhoEndsFirstLeavesOtherLoadersLow) {
  const int before = ::getpriority(PRIO_PROCESS, 0);
  std::atomic<int> seen{0};
  std::atomic<bool> ended{false};
  std::thread other;
  {
    const LoaderPriority low(5);
    if (!low.lowered()) GTEST_SKIP() << "this process may not raise a priority again, so nothing is lowered";
    std::atomic<bool> began{false};
    other = std::thread([&] {
      ::setpriority(PRIO_PROCESS, 0, before);  // as of a thread that was not born by one that loads
      const LoaderPriority low_too(5);
      began = true;
      while (!ended) std::this_thread::yield();
      seen = ::getpriority(PRIO_PROCESS, 0);
    });
    while (!began) std::this_thread::yield();
  }
  ended = true;
  other.join();
  EXPECT_EQ(seen, before + 5);
}

TEST(LoaderPriority, EndsAtTheLowest) {
  std::thread([] {
    ::setpriority(PRIO_PROCESS, 0, 15);
    const LoaderPriority low(10);
    if (low.lowered()) {
      EXPECT_EQ(::getpriority(PRIO_PROCESS, 0), 19);
    }
  }).join();
}

}  // namespace
}  // namespace fastserve
