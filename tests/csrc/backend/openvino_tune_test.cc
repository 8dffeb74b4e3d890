// The CPU as a device: how many streams a model gets and why, what is kept of it, allowed sizes, precision, bound instances and
// the process's budget.
#include <algorithm>
#include <fstream>
#include <mutex>

#include "backend/batch_run.h"
#include "backend/openvino_models.h"
#include "backend/tuning.h"
#include "base/cpu_budget.h"
#include "base/cpu_limits.h"
#include "base/log.h"

namespace fastserve::test {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kWidth = 1024;

// y = relu(relu(x W) W) with W = identity: 4 MB of weights a layer, two so that it is no small model; gives back x where x >= 0.
std::shared_ptr<ov::Model> wide_model(int layers = 2) {
  std::vector<float> w(static_cast<std::size_t>(kWidth * kWidth));
  for (std::size_t i = 0; i < static_cast<std::size_t>(kWidth); ++i)
    w[i * static_cast<std::size_t>(kWidth) + i] = 1;
  const auto x = input("x", {ov::Dimension::dynamic(), kWidth});
  ov::Output<ov::Node> value = x;
  for (int layer = 0; layer < layers; ++layer) {
    const auto weights = op::Constant::create(ov::element::f32, {kWidth, kWidth}, w);
    value = std::make_shared<op::Relu>(std::make_shared<op::MatMul>(value, weights));
  }
  return std::make_shared<ov::Model>(ov::ResultVector{output("y", value)}, ov::ParameterVector{x});
}

std::vector<std::string>& logged() {
  static std::vector<std::string> lines;
  return lines;
}
std::mutex& logged_mutex() {
  static std::mutex mutex;
  return mutex;
}

class OpenVinoCpu : public OpenVinoTest {
 protected:
  void SetUp() override {
    OpenVinoTest::SetUp();
    cache_ = directory_.string() + "-tuned";
    // Sanitizers and busy machines take long to compile, and here a busy machine shall not matter.
    set_tune_settings({true, cache_.string(), 30 * kSecond, 1e9});
    logged().clear();
    set_log_sink([](LogLevel, std::string_view line) {
      const std::lock_guard lock(logged_mutex());
      logged().emplace_back(line);
    });
    save(wide_model());
  }
  void TearDown() override {
    set_log_sink(nullptr);
    set_tune_settings({});
    CpuBudget::process().limit_threads(0);
    fs::remove_all(cache_);
    OpenVinoTest::TearDown();
  }

  LoadSpec wide(const std::map<std::string, std::string>& more = {}) const {
    LoadSpec with = spec();
    with.max_batch_rows = 8;
    with.parameters.insert(more.begin(), more.end());
    return with;
  }

  std::unique_ptr<LoadedModel> loaded(const LoadSpec& with) const {
    auto model = load(with);
    if (model.is_ok()) return std::move(model).value();
    ADD_FAILURE() << model.status().message();
    return nullptr;
  }
  std::string shape(const LoadSpec& with) const { return loaded(with)->properties().at("shape"); }

  static bool is_logged(const std::string& part) {
    const std::lock_guard lock(logged_mutex());
    return std::ranges::any_of(logged(), [&](const auto& line) { return line.find(part) != line.npos; });
  }
  std::vector<fs::path> kept() const {
    std::vector<fs::path> files;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(cache_, error)) files.push_back(entry.path());
    return files;
  }
  static bool can_measure() { return CpuBudget::process().threads() > 1; }

  // Runs one batch and compares it with what went in.
  static void expect_works(LoadedModel& model, BackendInstance& instance, std::int64_t rows,
                           std::int64_t run_rows) {
    std::vector<float> x(static_cast<std::size_t>(rows * kWidth));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 97);
    BatchRun run(model.signature());
    run.add(rows, {{"x", DType::kFp32, Shape{rows, kWidth}, bytes_of(x)}});
    ASSERT_TRUE(run.run(instance, run_rows).is_ok());
    EXPECT_EQ(run.output<float>(0, 0), x);
    EXPECT_EQ(run.finishes(), 1);
  }

  fs::path cache_;
};

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

// ---- streams

TEST_F(OpenVinoCpu, StreamsAreMeasuredOnceAndThenComeFromTheCache) {
  if (!can_measure()) GTEST_SKIP() << "one CPU";
  std::vector<std::string> progress;
  auto first =
      openvino_plugin().load(wide(), [&](double, std::string_view what) { progress.emplace_back(what); });
  ASSERT_TRUE(first.is_ok()) << first.status().message();
  EXPECT_HAS((*first)->properties().at("shape"), ", measured (1 stream: ");
  EXPECT_NE(std::ranges::find(progress, "measuring 1 stream x 1 row"), progress.end());
  EXPECT_NE(std::ranges::find(progress, "measuring 2 streams x 1 row"), progress.end());
  EXPECT_TRUE(is_logged("chosen in"));
  EXPECT_TRUE(kept().empty()) << "before the warm-up has found the sizes";

  const std::vector<std::int64_t> found{1, 2, 4};
  (*first)->warmed(found);
  ASSERT_EQ(kept().size(), 1U);
  const auto again = loaded(wide());
  EXPECT_HAS(again->properties().at("shape"), ", from the cache (1 stream: ");
  EXPECT_EQ(again->instance_count(), (*first)->instance_count());
  EXPECT_TRUE(std::ranges::equal(again->buckets(), found)) << "what the warm-up dropped stays dropped";

  EXPECT_HAS(shape(wide({{"INFERENCE_PRECISION_HINT", "bf16"}, {"ENABLE_HYPER_THREADING", "YES"}})),
             ", measured")
      << "other options, other figures";
}

TEST_F(OpenVinoCpu, ACorruptFileIsMeasuredAnewAndReplaced) {
  if (!can_measure()) GTEST_SKIP() << "one CPU";
  loaded(wide())->warmed({});
  ASSERT_EQ(kept().size(), 1U);
  std::ofstream(kept().front()) << "garbage";
  const auto again = loaded(wide());
  EXPECT_HAS(again->properties().at("shape"), ", measured");
  again->warmed({});
  EXPECT_HAS(shape(wide()), ", from the cache");
}

TEST_F(OpenVinoCpu, AFolderThatCannotBeWrittenCostsALogLine) {
  if (!can_measure()) GTEST_SKIP() << "one CPU";
  std::ofstream(cache_.string()) << "a file";
  const auto model = loaded(wide());
  EXPECT_HAS(model->properties().at("shape"), ", measured");
  model->warmed({});
  EXPECT_TRUE(is_logged("the measured shape is not kept"));
}

TEST_F(OpenVinoCpu, NothingIsMeasuredWhileOthersAreAtWork) {
  if (!can_measure()) GTEST_SKIP() << "one CPU";
  CpuBudget::process().run_started();
  const auto model = loaded(wide());
  CpuBudget::process().run_ended();
  EXPECT_HAS(model->properties().at("shape"), "1 stream, default: others were at work");
  EXPECT_TRUE(is_logged("is not measured, because others are at work"));
  model->warmed({});
  EXPECT_TRUE(kept().empty());
}

TEST_F(OpenVinoCpu, AMeasurementEndsWhenRequestsCome) {
  if (!can_measure()) GTEST_SKIP() << "one CPU";
  auto model = openvino_plugin().load(wide(), [](double, std::string_view what) {
    if (what != "measuring 2 streams x 1 row") return;
    CpuBudget::process().run_started();
    CpuBudget::process().run_ended();
  });
  ASSERT_TRUE(model.is_ok());
  EXPECT_HAS((*model)->properties().at("shape"), "not measured to the end: requests came");
  (*model)->warmed({});
  EXPECT_TRUE(kept().empty());
}

TEST_F(OpenVinoCpu, NothingIsConcludedFromABusyMachine) {
  if (!can_measure()) GTEST_SKIP() << "one CPU";
  set_tune_settings({true, cache_.string(), 30 * kSecond, -1});  // as if our threads had waited too long
  const auto model = loaded(wide());
  EXPECT_HAS(model->properties().at("shape"), "1 stream, not measured to the end: the machine is busy");
  EXPECT_TRUE(is_logged("until its next load"));
  model->warmed({});
  EXPECT_TRUE(kept().empty());
}

TEST_F(OpenVinoCpu, WhatWasFoundWhileOthersWereAtWorkIsNotKept) {
  if (!can_measure()) GTEST_SKIP() << "one CPU";
  const auto model = loaded(wide());
  CpuBudget::process().run_started();  // during the warm-up
  CpuBudget::process().run_ended();
  model->warmed({});
  EXPECT_TRUE(kept().empty());
}

TEST_F(OpenVinoCpu, TheConfigurationPinsTheStreams) {
  EXPECT_HAS(shape(wide({{"tune", "off"}})), "1 stream, not measured: tune is off");
  EXPECT_HAS(shape(wide({{"NUM_STREAMS", "2"}})), "by NUM_STREAMS");
  EXPECT_HAS(shape(wide({{"NUM_STREAMS", "1"}})), "by NUM_STREAMS");
  EXPECT_HAS(shape(wide({{"PERFORMANCE_HINT", "LATENCY"}})), "by PERFORMANCE_HINT");
  EXPECT_HAS(shape(wide({{"INFERENCE_NUM_THREADS", "1"}})), "by INFERENCE_NUM_THREADS");
  EXPECT_HAS(shape(wide({{"prepared", "static"}})), "each size is compiled by itself");
  LoadSpec two = wide();
  two.instance_count = 2;
  const auto model = loaded(two);
  EXPECT_HAS(model->properties().at("shape"), "2 streams, by instance_group");
  EXPECT_EQ(model->properties().at("streams"), "2");
  EXPECT_EQ(model->instance_count(), 2);
  EXPECT_TRUE(kept().empty());
}

TEST_F(OpenVinoCpu, TuneOffForTheProcessCanBeTurnedOnForAModel) {
  set_tune_settings({false, "", 30 * kSecond, 1e9});
  EXPECT_HAS(shape(wide()), "tune is off");
  if (can_measure()) {
    EXPECT_HAS(shape(wide({{"tune", "load"}})), "measured (1 stream");
  }
  EXPECT_HAS(refusal(wide({{"tune", "always"}}), Code::kInvalidArgument),
             "parameters[\"tune\"]: got \"always\", want auto, load or off");
}

// ---- one row by itself

TEST_F(OpenVinoCpu, OneRowByItselfOnDemand) {
  const auto model = loaded(wide({{"prepared", "lone"}, {"tune", "off"}}));
  EXPECT_EQ(model->properties().at("compiled_models"), "2");
  EXPECT_EQ(model->properties().at("prepared"), "dynamic, 1 to 8 rows; one row by itself");
  EXPECT_EQ(model->properties().at("lone"), "one row has a compiled model of its own, by prepared");
  EXPECT_FALSE(model->pads());
  auto instance = model->make_instance(0);
  ASSERT_TRUE(instance.is_ok());
  for (const std::int64_t rows : {1, 8, 1, 3, 1}) expect_works(*model, **instance, rows, rows);
}

TEST_F(OpenVinoCpu, BatchesOfBothModelsTakeTurns) {
  const auto model = loaded(wide({{"prepared", "lone"}, {"tune", "off"}, {"depth", "3"}}));
  auto instance = model->make_instance(0);
  ASSERT_TRUE(instance.is_ok());
  std::vector<float> x(static_cast<std::size_t>(2 * kWidth), 3.0F);
  for (int round = 0; round < 100; ++round) {
    std::vector<std::unique_ptr<BatchRun>> runs;
    for (const std::int64_t rows : {1, 2, 1}) {
      const auto bytes = bytes_of(x).first(static_cast<std::size_t>(rows * kWidth) * sizeof(float));
      runs.push_back(std::make_unique<BatchRun>(model->signature()));
      runs.back()->add(rows, {{"x", DType::kFp32, Shape{rows, kWidth}, bytes}});
      ASSERT_TRUE(runs.back()->gather(rows).is_ok());
      runs.back()->start(**instance);
    }
    for (const auto& run : runs) {
      ASSERT_TRUE(run->wait().is_ok());
      EXPECT_EQ(run->finishes(), 1);
      EXPECT_EQ(run->output<float>(0, 0)[0], 3.0F);
    }
  }
}

TEST_F(OpenVinoCpu, WhetherOneRowGetsAModelIsMeasuredOnceAndThenComesFromTheCache) {
  const LoadSpec pinned = wide({{"NUM_STREAMS", "1"}});
  const auto first = loaded(pinned);
  if (first->properties().at("run") == "on the instance's thread") GTEST_SKIP() << "light on this machine";
  EXPECT_HAS(first->properties().at("lone"), ", measured (alone ");
  EXPECT_TRUE(kept().empty()) << "before the warm-up";
  first->warmed({});
  ASSERT_EQ(kept().size(), 1U);
  const auto again = loaded(pinned);
  EXPECT_HAS(again->properties().at("lone"), ", from the cache (alone ");
  EXPECT_EQ(again->properties().at("compiled_models"), first->properties().at("compiled_models"));
  if (!can_measure()) return;
  // With the streams, in one file.
  loaded(wide())->warmed({});
  EXPECT_EQ(kept().size(), 2U);
  const auto both = loaded(wide());
  EXPECT_HAS(both->properties().at("shape"), "from the cache");
  EXPECT_HAS(both->properties().at("lone"), "from the cache");
}

TEST_F(OpenVinoCpu, OneRowSharesWhereNothingIsMeasured) {
  const auto lone = [&](const LoadSpec& with) { return loaded(with)->properties().at("lone"); };
  const LoadSpec pinned = wide({{"NUM_STREAMS", "1"}});
  EXPECT_HAS(lone(wide({{"tune", "off"}})), "one row runs in the one for all, not measured: tune is off");
  CpuBudget::process().run_started();
  EXPECT_HAS(lone(pinned), "not measured: others were at work");
  CpuBudget::process().run_ended();
  set_tune_settings({true, cache_.string(), 30 * kSecond, -1});
  const auto busy = loaded(pinned);
  EXPECT_HAS(busy->properties().at("lone"), "not measured: the machine is busy");
  EXPECT_EQ(busy->properties().at("compiled_models"), "1");
  busy->warmed({});
  EXPECT_TRUE(kept().empty());
}

TEST_F(OpenVinoCpu, NoQuestionOfOneRow) {
  const auto asked = [&](const LoadSpec& with) { return loaded(with)->properties().contains("lone"); };
  EXPECT_FALSE(asked(wide({{"prepared", "dynamic"}})));
  EXPECT_FALSE(asked(wide({{"prepared", "static"}})));
  LoadSpec with = wide();
  with.max_batch_rows = 1;
  EXPECT_FALSE(asked(with));
  with.max_batch_rows = 8;
  with.allowed_rows = {2, 8};
  EXPECT_FALSE(asked(with)) << "one row runs as two";
}

// ---- sizes

TEST_F(OpenVinoCpu, AllowedSizesAreTheOnlyOnesAndBatchesArePadded) {
  for (const char* prepared : {"dynamic", "static"}) {
    LoadSpec with = wide({{"prepared", prepared}, {"tune", "off"}});
    with.max_batch_rows = -1;
    with.allowed_rows = {2, 6};
    const auto model = loaded(with);
    EXPECT_EQ(model->signature().max_batch_rows, 6);
    EXPECT_TRUE(model->pads());
    EXPECT_TRUE(std::ranges::equal(model->buckets(), std::vector<std::int64_t>{2, 6}));
    EXPECT_HAS(model->properties().at("prepared"), "2 6");
    auto instance = model->make_instance(0);
    ASSERT_TRUE(instance.is_ok());
    expect_works(*model, **instance, 1, 2);
    expect_works(*model, **instance, 3, 6);
    expect_works(*model, **instance, 6, 6);
  }
}

TEST_F(OpenVinoCpu, AllowedSizesMustEndWithTheBatchSize) {
  LoadSpec with = wide();
  with.allowed_rows = {1, 4};
  EXPECT_HAS(refusal(with, Code::kInvalidArgument), "allowed_batch_sizes[1]: got 4, want 8");
  with.max_batch_rows = 0;
  EXPECT_HAS(refusal(with, Code::kInvalidArgument), "does not batch");
}

// ---- precision

TEST_F(OpenVinoCpu, SaysInWhichPrecisionItComputes) {
  const auto pinned = loaded(wide({{"tune", "off"}}));
  EXPECT_EQ(pinned->properties().at("precision"), "f32");
  EXPECT_EQ(pinned->properties().at("precision_of_operations"), "f32 2");
  EXPECT_TRUE(is_logged("model 'm' computes in f32 (by INFERENCE_PRECISION_HINT"));
  LoadSpec own = wide({{"tune", "off"}});
  own.parameters.erase("INFERENCE_PRECISION_HINT");
  const auto free = loaded(own);
  const std::string chosen = free->properties().at("precision");
  EXPECT_TRUE(chosen == "f32" || chosen == "bf16" || chosen == "f16") << chosen;
  EXPECT_TRUE(is_logged("computes in " + chosen + " (OpenVINO's choice on this CPU; pin it with"));
}

// ---- placement

TEST_F(OpenVinoCpu, CpusOfTheInstancesBoundTheThreads) {
  LoadSpec with = wide();
  with.instance_count = 2;
  with.groups = {{"bound", 1, "", {0}, {}, 0}, {"same", 1, "", {0}, {}, 0}};
  auto model = loaded(with);
  EXPECT_EQ(model->properties().at("threads"), "1");
  EXPECT_TRUE(std::ranges::equal(model->cpus(1), std::vector<int>{0}));
  with.groups[1].cpus.clear();  // may run anywhere
  model = loaded(with);
  EXPECT_EQ(model->properties().at("threads"), std::to_string(CpuBudget::process().threads()));
  EXPECT_TRUE(model->cpus(1).empty());
  auto instance = model->make_instance(0);
  ASSERT_TRUE(instance.is_ok());
  expect_works(*model, **instance, 2, 2);
}

// ---- the process's budget

TEST_F(OpenVinoCpu, HeavyRunsWaitForTheirThreadsWhenTheBudgetIsSmallerThanTheMachine) {
  CpuBudget& budget = CpuBudget::process();
  budget.limit_threads(1);
  save(wide_model(8));  // a run of two layers takes about as long as what counts as light
  const auto model = loaded(wide());
  EXPECT_EQ(model->properties().at("threads"), "1");
  auto instance = model->make_instance(0);
  ASSERT_TRUE(instance.is_ok());
  if (affinity_cpus().size() == 1) GTEST_SKIP() << "one CPU: nothing is held back";
  // Somebody else's run has the only thread.
  CpuBudget::Turn other{[](CpuBudget::Turn&) {}, nullptr, 1};
  ASSERT_TRUE(budget.take(other));
  std::vector<float> x(static_cast<std::size_t>(kWidth), 1.0F);
  BatchRun run(model->signature());
  run.add(1, {{"x", DType::kFp32, Shape{1, kWidth}, bytes_of(x)}});
  ASSERT_TRUE(run.gather(1).is_ok());
  run.start(**instance);
  EXPECT_EQ(run.finishes(), 0);  // not before the other one ends
  budget.give_back(other);
  EXPECT_TRUE(run.wait().is_ok());
  EXPECT_EQ(run.output<float>(0, 0), x);
  run.clear();
  expect_works(*model, **instance, 3, 3);  // given back
}

TEST_F(OpenVinoCpu, RunsAreCountedButWarmUpsAreNot) {
  const auto model = loaded(wide({{"tune", "off"}}));
  auto instance = model->make_instance(0);
  ASSERT_TRUE(instance.is_ok());
  const CpuBudget::Runs before = CpuBudget::process().runs();
  {
    const PreparingScope warming;
    expect_works(*model, **instance, 1, 1);
  }
  EXPECT_EQ(CpuBudget::process().runs(), before);
  expect_works(*model, **instance, 1, 1);
  EXPECT_EQ(CpuBudget::process().runs().started, before.started + 1);
  EXPECT_TRUE(CpuBudget::process().runs().none());
}

}  // namespace
}  // namespace fastserve::test
