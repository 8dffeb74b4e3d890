#include "model/model_version.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "model/version_table.h"
#include "support/gate_backend.h"
#include "support/samples.h"

namespace fastserve {
namespace {

class ModelVersionTest : public ::testing::Test {
 protected:
  Status load(const LoadSpec& spec) {
    version_ = std::make_shared<ModelVersion>(spec, timer_);
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

  ExpiryTimer timer_;
  GateBackend backend_;
  std::shared_ptr<ModelVersion> version_;
  std::vector<std::string> steps_;
};

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
  for (const std::int64_t rows : {1, 4, 8}) EXPECT_GT(version_->queue().cost.expected_ns(rows), 0) << rows;
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

TEST_F(ModelVersionTest, TheTableFindsInTritonsWords) {
  const auto version = [&](std::int64_t number) {
    LoadSpec spec = identity_spec();
    spec.version = number;
    return std::make_shared<ModelVersion>(spec, timer_);
  };
  VersionTable table;
  for (const std::int64_t number : {1, 3, 7}) table.add_known("echo", number);
  table.add_known("empty", 1);
  const auto first = version(1);
  const auto third = version(3);
  table.add_ready(first);
  table.add_ready(third);
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
