// Priorities, queue policies and admission through the whole engine, and what `explain` reads of them.
#include "engine/read_scheduling.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <deque>
#include <map>
#include <string>
#include <thread>
#include <utility>

#include "engine/engine.h"
#include "model/model_version.h"
#include "support/gate_backend.h"
#include "support/samples.h"

namespace fastserve {
namespace {

class SchedulingTest : public ::testing::Test {
 protected:
  SchedulingTest() { engine_.backends().add(gate_); }
  ~SchedulingTest() override {
    for (RowRequest& sample : requests_) sample.request.reset();
  }
  void load(const QueueLimits& queue = {}, std::int64_t max_rows = 1, Nanos target = 0) {
    LoadSpec spec = identity_spec(max_rows);
    spec.backend = "gate";
    spec.queue = queue;
    spec.limits.target_p99_ns = target;
    gate_.open = true;  // the warm-up runs through
    const Status loaded = engine_.load(spec);
    ASSERT_TRUE(loaded.is_ok()) << loaded.message();
    gate_.open = false;
  }
  Request& make(std::uint32_t priority = 0, Nanos deadline = kNever) {
    Request& request = requests_.emplace_back(&completions_, 1, static_cast<int>(requests_.size())).request;
    request.priority = priority;
    request.deadline = deadline;
    return request;
  }
  Request& submit(std::uint32_t priority = 0) {
    Request& request = make(priority);
    EXPECT_TRUE(submitter_.submit(request).is_ok());
    submitter_.flush();
    return request;
  }
  // A request that runs until it is let go.
  Batch& occupy() {
    submit();
    return gate_.gate.next();
  }
  SchedulingView view() { return engine_.scheduling("echo", 1).value(); }

  GateBackend gate_;
  CompletionQueue completions_{CompletionQueue::Wake::kFutex};
  std::deque<RowRequest> requests_;
  Engine engine_;
  Submitter submitter_{engine_};
};

TEST_F(SchedulingTest, HighOvertakesLow) {
  load();
  Batch& first = occupy();
  Request& low = submit(9);
  Request& high = submit(2);
  echo(first);
  Batch& second = gate_.gate.next();
  EXPECT_EQ(second.slots().front().request, &high);
  echo(second);
  Batch& third = gate_.gate.next();
  EXPECT_EQ(third.slots().front().request, &low);
  echo(third);
  EXPECT_EQ(wait_for(completions_, 3).size(), 3U);
}

TEST_F(SchedulingTest, APolicyIsRefusedAtLoadWhenItCannotBe) {
  LoadSpec spec = identity_spec();
  spec.queue.priority_levels = 99;
  const Status loaded = engine_.load(spec);
  EXPECT_EQ(loaded.code(), Code::kInvalidArgument);
  EXPECT_EQ(loaded.message(), "priority_levels: got 99, want 0 to 16");
}

TEST_F(SchedulingTest, AQueueTimeoutIsAnsweredOnTimeThoughTheInstanceIsBusy) {
  QueueLimits queue;
  queue.by_priority[2].timeout_ns = 20 * kMillisecond;
  load(queue);
  Batch& first = occupy();  // of the middle level: a stalled machine must not time it out
  Request& waits = submit(2);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_EQ(waits.response.status.code(), Code::kUnavailable);
  EXPECT_EQ(waits.response.status.message(), "Request timeout expired");
  const Nanos late = waits.times.delivered - waits.times.enqueued - 20 * kMillisecond;
  EXPECT_GE(late, 0);
  EXPECT_LT(late, 200 * kMillisecond) << "10 ms on a quiet machine";
  echo(first);
  EXPECT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_EQ(gate_.gate.kept(), 0U) << "it never runs";
  const VersionStatistics statistics = engine_.statistics("echo", 1).value();
  EXPECT_EQ(statistics.requests_rejected.at("queue_timeout"), 1U);
  EXPECT_EQ(statistics.expired_executed, 0U);
}

TEST_F(SchedulingTest, RefusesAtOnceWhatIsExpectedToBeLate) {
  load({}, 1, 20 * kMillisecond);
  InstanceLine* line = nullptr;
  {
    auto found = engine_.resolve("echo", "");
    ASSERT_TRUE(found.is_ok());
    line = static_cast<ModelVersion*>(*found)->queue().instances.lines().front().get();
    (*found)->release();
  }
  for (int i = 0; i < 50; ++i) line->cost.record(1, 10 * kMillisecond);
  Batch* batch = &occupy();  // its pull tells submitters what a batch costs
  int admitted = 0;
  Status refused;
  for (; admitted < 20; ++admitted) {
    refused = submitter_.submit(make());
    if (!refused.is_ok()) break;
  }
  EXPECT_EQ(refused.code(), Code::kUnavailable);
  EXPECT_NE(refused.message().find("would miss the latency target"), std::string::npos) << refused.message();
  EXPECT_TRUE(submitter_.refusal_counted());
  EXPECT_LE(admitted, 2) << "30 ms to go: one runs, 10 ms each";
  EXPECT_TRUE(submitter_.submit(make(1)).is_ok()) << "high priority goes before them";
  const Status late = submitter_.submit(make(1, monotonic_now() + 12 * kMillisecond));
  EXPECT_NE(late.message().find("would miss its deadline"), std::string::npos) << late.message();
  const VersionStatistics statistics = engine_.statistics("echo", 1).value();
  EXPECT_EQ(statistics.requests_rejected.at("too_late"), 2U);
  EXPECT_EQ(statistics.rejected.count, 2U);
  const auto refusals = view().refusals;
  ASSERT_EQ(refusals.size(), 1U);
  EXPECT_EQ(refusals.front(), (std::pair<std::string, std::uint64_t>{"too_late", 2}));
  submitter_.flush();
  for (int left = admitted + 1; left >= 0; --left) {
    echo(*batch);
    if (left != 0) batch = &gate_.gate.next();
  }
  EXPECT_EQ(wait_for(completions_, static_cast<std::size_t>(admitted) + 2).size(),
            static_cast<std::size_t>(admitted) + 2);
}

TEST_F(SchedulingTest, SaysWhatItBelievesAndDid) {
  QueueLimits queue;
  queue.priority_levels = 4;
  queue.by_priority[1].max_requests = 5;
  load(queue, 8);
  SchedulingView before = view();
  EXPECT_EQ(before.model, "echo");
  EXPECT_EQ(before.priority_levels, 4U);
  EXPECT_EQ(before.default_priority, 2U);
  EXPECT_TRUE(before.minute.batches.empty());
  ASSERT_EQ(before.instances.size(), 1U);
  EXPECT_FALSE(before.instances.front().costs.empty()) << "seeded by the warm-up";
  ASSERT_EQ(before.levels.size(), 1U) << "one has a policy of its own";
  Batch& first = occupy();
  submit(3);
  submit(3);
  const SchedulingView during = view();
  EXPECT_EQ(during.waiting, 2);
  ASSERT_EQ(during.levels.size(), 2U);
  EXPECT_EQ(during.levels.back().priority, 3U);
  EXPECT_EQ(during.levels.back().requests, 2);
  EXPECT_EQ(during.instances.front().in_flight, 1);
  echo(first);
  echo(gate_.gate.next());
  EXPECT_EQ(wait_for(completions_, 3).size(), 3U);
  const SchedulingView after = view();
  std::map<std::int64_t, std::uint64_t> sizes;
  for (const auto& size : after.minute.batches) sizes[size.rows] = size.count;
  EXPECT_EQ(sizes, (std::map<std::int64_t, std::uint64_t>{{1, 1}, {2, 1}}));
  EXPECT_EQ(after.minute.requests, 3U);
  EXPECT_EQ(after.waiting, 0);
  const double rate = after.arrivals_per_s;
  EXPECT_GT(rate, 0);
  for (int i = 0; i < 100 && view().arrivals_per_s >= rate; ++i)
    ::usleep(50'000);  // until nothing runs, and then some
  EXPECT_LT(view().arrivals_per_s, rate) << "nothing came since";
  EXPECT_EQ(engine_.scheduling("nobody", 1).status().code(), Code::kNotFound);
}

TEST_F(SchedulingTest, IsReadWhileRequestsRun) {
  ASSERT_TRUE(engine_.load(identity_spec(8, 2)).is_ok());
  std::atomic<bool> stop{false};
  std::thread reader([&] {
    while (!stop) EXPECT_EQ(engine_.scheduling("echo", 1).value().expired_executed, 0U);
  });
  for (int i = 0; i < 500; ++i) {
    for (int n = 0; n < 8; ++n) submit(static_cast<std::uint32_t>(n % 5));
    EXPECT_EQ(wait_for(completions_, 8).size(), 8U);
  }
  stop = true;
  reader.join();
  EXPECT_EQ(view().minute.requests, 4000U);
}

// Deadlines that pass while requests wait, are gathered and run: no one whose deadline passed is handed to the device.
TEST_F(SchedulingTest, NoExpiredRequestIsExecuted) {
  LoadSpec spec = identity_spec(8);
  spec.parameters["execute_delay_us"] = "200";
  ASSERT_TRUE(engine_.load(spec).is_ok());
  std::size_t served = 0;
  std::size_t expired = 0;
  for (int i = 0; i < 200; ++i) {
    std::size_t accepted = 0;
    for (int n = 0; n < 24; ++n) {
      Request& request = make(0, monotonic_now() + (50 + 37 * n) * kMicrosecond);
      if (submitter_.submit(request).is_ok()) ++accepted;
    }
    submitter_.flush();
    for (const Response* response : wait_for(completions_, accepted)) {
      ++(response->status.is_ok() ? served : expired);
    }
  }
  EXPECT_GT(served, 0U);
  EXPECT_EQ(engine_.statistics("echo", 1).value().expired_executed, 0U);
}

std::int64_t resident_kib() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  long pages = 0;
  long resident = 0;
  const bool read = std::fscanf(file, "%ld %ld", &pages, &resident) == 2;
  std::fclose(file);
  return read ? static_cast<std::int64_t>(resident) * ::sysconf(_SC_PAGESIZE) / 1024 : 0;
}

// Of the process in user and system mode.
Nanos cpu_ns() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * kSecond +
         (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * kMicrosecond;
}

TEST_F(SchedulingTest, IdleModelsCostNoCpuAndLittleMemory) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "a sanitizer's memory is not ours";
#endif
  constexpr int kModels = 1000;
  EngineOptions options;
  options.loader_nice = 0;  // who waits for a test is no serving model
  Engine engine(options);
  LoadSpec spec = identity_spec(4096);
  const auto load_one = [&](int i) {
    spec.model = "m" + std::to_string(i);
    ASSERT_TRUE(engine.load(spec).is_ok());
  };
  for (int i = 0; i < 10; ++i) load_one(i);
  const std::int64_t before = resident_kib();
  for (int i = 10; i < 10 + kModels; ++i) load_one(i);
  const std::int64_t each = (resident_kib() - before) / kModels;
  RecordProperty("kib_per_idle_model", std::to_string(each));
  std::printf("KiB per idle model (batches of up to 4096 rows): %ld\n", static_cast<long>(each));
  EXPECT_LE(each, 64);
  const Nanos cpu = cpu_ns();
  ::usleep(300'000);
  EXPECT_LE(cpu_ns() - cpu, 5 * kMillisecond);
}

}  // namespace
}  // namespace fastserve
