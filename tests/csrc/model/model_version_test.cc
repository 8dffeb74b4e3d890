#include "model/model_version.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "model/version_table.h"
#include "support/gate_backend.h"
#include "support/samples.h"

namespace fastserve {
namespace {

class ModelVersionTest : public ::testing::Test {
 protected:
  Status load(const LoadSpec& spec) {
    version_ = std::make_shared<ModelVersion>(spec, timer_, &limiter_);
    return version_->load(backend_, [this](double, std::string_view what) { steps_.emplace_back(what); });
  }
  void unload() {
    version_->drain_begin();
    version_->wait_unused(kNever);
    version_->destroy();
  }

  // The sizes that ran at least `times` times.
  std::set<std::int64_t> rows_that_ran(std::ptrdiff_t times) const {
    std::set<std::int64_t> out(backend_.ran_rows.begin(), backend_.ran_rows.end());
    std::erase_if(out,
                  [&](std::int64_t rows) { return std::ranges::count(backend_.ran_rows, rows) < times; });
    return out;
  }

  std::vector<std::string> instance_names() const {
    std::vector<std::string> out;
    for (const auto& line : version_->queue().instances.lines()) out.push_back(line->name);
    return out;
  }

  RateLimiter limiter_{RateLimits{true, {{"R1", 2}}}};
  ExpiryTimer timer_;
  GateBackend backend_;
  std::shared_ptr<ModelVersion> version_;
  std::vector<std::string> steps_;
};

TEST_F(ModelVersionTest, TellsTheBackendWhichSizesAreWorthRunning) {
  backend_.buckets = {1, 4, 8};
  ASSERT_TRUE(load(identity_spec(8, 1)).is_ok());
  EXPECT_EQ(backend_.warmed_rows, (std::vector<std::int64_t>{1, 4, 8}));
  EXPECT_EQ(backend_.counted_runs, 0) << "a warm-up serves nobody";
  ASSERT_TRUE(version_->start().is_ok());
  unload();
}

TEST_F(ModelVersionTest, WarmsEveryBucketOnEveryInstance) {
  backend_.buckets = {1, 4, 8};
  ASSERT_TRUE(load(identity_spec(8, 2)).is_ok());
  EXPECT_EQ(rows_that_ran(2), (std::set<std::int64_t>{1, 4, 8}));
  EXPECT_EQ(version_->view().state, VersionState::kWarming);
  ASSERT_TRUE(version_->start().is_ok());
  EXPECT_EQ(version_->view().state, VersionState::kReady);
  EXPECT_EQ(version_->handles(), 0);
  for (const auto& shard : version_->queue().statistics.shards()) {
    EXPECT_EQ(shard->total.sum_ns(), 0U) << "a warm-up is no inference";
  }
  EXPECT_EQ(steps_, (std::vector<std::string>{"reading", "warming 1 row", "warming 4 rows", "warming 8 rows",
                                              "warm"}));
  unload();
  EXPECT_EQ(version_->view().state, VersionState::kUnloaded);
}

TEST_F(ModelVersionTest, TheWarmUpSeedsTheCostModelAndTellsTheQueueWhatIsPrepared) {
  backend_.buckets = {1, 4, 8};
  ASSERT_TRUE(load(identity_spec(8)).is_ok());
  for (const std::int64_t rows : {1, 4, 8})
    EXPECT_GT(version_->queue().instances.lines()[0]->cost.expected_ns(rows), 0) << rows;
  EXPECT_EQ(version_->queue().limits().prepared_rows, (std::vector<std::int64_t>{1, 4, 8}));
  EXPECT_TRUE(version_->queue().limits().pads);
  ASSERT_TRUE(version_->start().is_ok());
  unload();
}

TEST_F(ModelVersionTest, WithoutBucketsWarmsOneRowAndTheMost) {
  ASSERT_TRUE(load(identity_spec(8)).is_ok());
  EXPECT_EQ(rows_that_ran(1), (std::set<std::int64_t>{1, 8}));
  ASSERT_TRUE(version_->start().is_ok());
  unload();
  backend_.ran_rows.clear();
  ASSERT_TRUE(load(identity_spec(0)).is_ok());
  EXPECT_EQ(rows_that_ran(1), (std::set<std::int64_t>{1}));
  ASSERT_TRUE(version_->start().is_ok());
  unload();
}

TEST_F(ModelVersionTest, EveryFaultWhileLoadingIsFailedWithTheReason) {
  for (const auto& [fault, word] :
       std::vector<std::pair<Fault, std::string>>{{Fault::kLoadThrows, "the file bites"},
                                                  {Fault::kLoadFails, "got garbage"},
                                                  {Fault::kStartFails, "on fire"},
                                                  {Fault::kStartThrows, "start threw"},
                                                  {Fault::kNoOutput, "did not set it"}}) {
    backend_.fault = fault;
    EXPECT_FALSE(load(identity_spec()).is_ok());
    EXPECT_EQ(version_->view().state, VersionState::kFailed);
    EXPECT_NE(version_->view().reason.find(word), std::string::npos) << version_->view().reason;
  }
}

TEST_F(ModelVersionTest, AGuessedShapeMayFailTheWarmUp) {
  LoadSpec spec = identity_spec(4);
  spec.inputs[0].shape = spec.outputs[0].shape = Shape{-1, -1};
  backend_.fault = Fault::kStartFails;
  ASSERT_TRUE(load(spec).is_ok());
  ASSERT_TRUE(version_->start().is_ok());
  unload();
}

TEST_F(ModelVersionTest, ASignatureWithoutRowsInFrontIsRefused) {
  LoadSpec spec = identity_spec(4);
  spec.outputs[0].shape = Shape{2};
  EXPECT_EQ(load(spec).code(), Code::kInternal);
}

// Of this process's threads with such a name: the line of /proc that says which CPUs it may use.
std::vector<std::string> cpus_of_threads(const std::string& name) {
  std::vector<std::string> out;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string comm;
    std::getline(std::ifstream(task.path() / "comm") >> std::ws, comm);
    if (comm != name) continue;
    std::ifstream status(task.path() / "status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("Cpus_allowed_list:")) out.push_back(line.substr(line.find_last_of(" \t") + 1));
    }
  }
  return out;
}

int some_cpu() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  ::sched_getaffinity(0, sizeof allowed, &allowed);
  int cpu = CPU_SETSIZE - 1;
  while (!CPU_ISSET(cpu, &allowed)) --cpu;
  return cpu;
}

TEST_F(ModelVersionTest, AVersionThatNobodyAsksHasNoThreadAndNoBatch) {
  ASSERT_TRUE(load(identity_spec(8, 2)).is_ok());
  ASSERT_TRUE(version_->start().is_ok());
  EXPECT_EQ(version_->threads(), 0U);
  EXPECT_TRUE(cpus_of_threads("fs0-echo").empty());
  Instance* instance = version_->claim_idle();
  ASSERT_NE(instance, nullptr);
  EXPECT_EQ(instance->arena().idle(), 0U) << "what the warm-up used is free again";
  instance->run_claimed();
  EXPECT_EQ(version_->threads(), 0U);
  version_->queue().ring();
  EXPECT_EQ(version_->threads(), 2U);
  unload();
  EXPECT_EQ(version_->threads(), 0U);
}

TEST_F(ModelVersionTest, InstancesAreNamedAfterTheirGroups) {
  ASSERT_TRUE(load(identity_spec(8, 2)).is_ok());
  EXPECT_EQ(instance_names(), (std::vector<std::string>{"echo_0_0", "echo_0_1"}));
  ASSERT_TRUE(version_->start().is_ok());
  unload();
  LoadSpec spec = identity_spec(8, 4);
  spec.groups.resize(3);
  spec.groups[0].name = "fast";
  spec.groups[1].count = 2;
  spec.groups[2].name = "slow";
  ASSERT_TRUE(load(spec).is_ok());
  EXPECT_EQ(instance_names(), (std::vector<std::string>{"fast_0", "echo_1_0", "echo_1_1", "slow_0"}));
  ASSERT_TRUE(version_->start().is_ok());
  unload();
}

TEST_F(ModelVersionTest, AGroupsThreadsStayOnItsCpus) {
  LoadSpec spec = identity_spec(8, 2);
  spec.groups.resize(2);
  spec.groups[0].cpus = {some_cpu()};
  ASSERT_TRUE(load(spec).is_ok());
  ASSERT_TRUE(version_->start().is_ok());
  version_->queue().ring();
  EXPECT_EQ(cpus_of_threads("fs0-echo"), (std::vector<std::string>{std::to_string(some_cpu())}));
  EXPECT_EQ(cpus_of_threads("fs1-echo").size(), 1U);
  Instance* free_one = version_->claim_idle();
  if (free_one != nullptr) {
    EXPECT_EQ(free_one->name(), "echo_1_0") << "no other thread runs what belongs to those CPUs";
    free_one->run_claimed();
  }
  unload();
}

TEST_F(ModelVersionTest, CpusThatTheProcessHasNotAreRefused) {
  for (const int cpu : {-1, 1023, 1024, 99999}) {
    LoadSpec spec = identity_spec(8, 2);
    spec.groups.resize(2);
    spec.groups[1].cpus = {some_cpu(), cpu};
    const Status status = load(spec);
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_TRUE(status.message().starts_with("instance_group[1].cpus: got " + std::to_string(cpu) + ", want"))
        << status.message();
  }
}

TEST_F(ModelVersionTest, ANeedBeyondTheRateLimitFailsTheLoadAndLeavesNothing) {
  LoadSpec spec = identity_spec(8, 1);
  spec.groups.resize(1);
  spec.groups[0].resources = {{"R1", false, 3}};
  const Status status = load(spec);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_TRUE(status.message().starts_with(
      "instance_group[0].rate_limiter.resources[\"R1\"].count: got 3, want at most 2"))
      << status.message();
  EXPECT_EQ(version_->view().state, VersionState::kFailed);
  spec.groups[0].resources = {{"R1", false, 2}, {"R2", false, 5}};
  ASSERT_TRUE(load(spec).is_ok());
  EXPECT_EQ(limiter_.limit_of("R2"), 5);
  ASSERT_TRUE(version_->start().is_ok());
  unload();
  EXPECT_EQ(limiter_.limit_of("R2"), 0) << "its seat left with it";
}

TEST_F(ModelVersionTest, TheTableFindsInTritonsWords) {
  const auto version = [&](std::int64_t number) {
    LoadSpec spec = identity_spec();
    spec.version = number;
    return std::make_shared<ModelVersion>(spec, timer_);
  };
  VersionTable table;
  const auto first = version(1);
  const auto third = version(3);
  const auto publish = [&](std::string name, std::vector<std::int64_t> known,
                           std::vector<std::shared_ptr<ModelVersion>> ready) {
    auto model = std::make_shared<PublishedModel>();
    model->name = std::move(name);
    model->known = std::move(known);
    model->ready = std::move(ready);
    table.put(std::move(model));
  };
  publish("echo", {1, 3, 7}, {first, third});
  publish("empty", {1}, {});
  EXPECT_EQ(table.find("echo", "").value(), third.get());
  EXPECT_EQ(table.find("echo", "-1").value(), third.get());
  EXPECT_EQ(table.find("echo", "1").value(), first.get());
  const auto error = [&](std::string_view model, std::string_view number) {
    return table.find(model, number).status();
  };
  EXPECT_EQ(error("x", "").message(), "Request for unknown model: 'x' is not found");
  EXPECT_EQ(error("x", "").code(), Code::kNotFound);
  EXPECT_EQ(error("echo", "5").message(), "Request for unknown model: 'echo' version 5 is not found");
  EXPECT_EQ(error("echo", "5").code(), Code::kNotFound);
  EXPECT_EQ(error("echo", "7").message(),
            "Request for unknown model: 'echo' version 7 is not at ready state");
  EXPECT_EQ(error("echo", "7").code(), Code::kUnavailable);
  EXPECT_EQ(error("empty", "").message(), "Request for unknown model: 'empty' has no available versions");
  EXPECT_EQ(error("echo", "one").code(), Code::kInvalidArgument);
  EXPECT_EQ(error("echo", "99999999999999999999").code(), Code::kInvalidArgument);
  EXPECT_LT(error(std::string(9999, 'm'), "").message().size(), 300U);
  table.refuse_all();
  EXPECT_EQ(error("echo", "").code(), Code::kUnavailable);
}

}  // namespace
}  // namespace fastserve
