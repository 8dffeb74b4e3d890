// model_warmup: what runs before READY, with which data, and what a wrong sample is told.
#include "model/warm_up_sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "model/model_version.h"
#include "support/samples.h"

namespace fastserve {
namespace {

// Keeps what it was run with; fails when told to.
class RecordingBackend final : public Backend {
 public:
  struct Seen {
    int instance = 0;
    std::vector<Shape> shapes;
    std::vector<std::vector<std::byte>> data;  // empty: an absent optional input
  };
  std::string_view name() const override { return "recording"; }
  Result<std::unique_ptr<LoadedModel>> load(const LoadSpec& spec, const Progress&) override {
    return std::unique_ptr<LoadedModel>(std::make_unique<Model>(*this, spec));
  }
  // Those that the sizes' own warm-up did not make.
  std::vector<Seen> of_samples() const {
    std::vector<Seen> out;
    std::ranges::copy_if(seen, std::back_inserter(out), [](const Seen& each) {
      return std::ranges::any_of(each.data, [](const auto& data) {
        return std::ranges::any_of(data, [](std::byte b) { return b != std::byte{0}; });
      });
    });
    return out;
  }

  std::vector<Seen> seen;
  std::vector<std::byte> fail_on;  // first input

 private:
  class Instance final : public BackendInstance {
   public:
    Instance(RecordingBackend& backend, int index) : backend_(backend), index_(index) {}
    int depth() const override { return 1; }
    void start(Batch& batch) override {
      Seen& now = backend_.seen.emplace_back();
      now.instance = index_;
      for (const BatchTensor& input : batch.inputs()) {
        now.shapes.push_back(input.present ? input.shape : Shape{});
        const std::span<const std::byte> data =
            input.present ? std::span(input.data, input.bytes) : std::span<const std::byte>{};
        now.data.emplace_back(data.begin(), data.end());
      }
      if (!backend_.fail_on.empty() && now.data[0] == backend_.fail_on) {
        return batch.finish(internal_error("the device chokes on it"));
      }
      std::byte* memory = batch.output_memory(0, now.data[0].size());
      std::ranges::copy(now.data[0], memory);
      batch.set_output(0, batch.inputs()[0].dtype, batch.inputs()[0].shape, memory, now.data[0].size());
      batch.finish(Status::ok());
    }

   private:
    RecordingBackend& backend_;
    const int index_;
  };
  class Model final : public LoadedModel {
   public:
    Model(RecordingBackend& backend, const LoadSpec& spec)
        : backend_(backend),
          signature_{spec.inputs, spec.outputs, std::max<std::int64_t>(spec.max_batch_rows, 0)},
          instances_(spec.instance_count) {}
    const Signature& signature() const override { return signature_; }
    int instance_count() const override { return instances_; }
    std::span<const std::int64_t> buckets() const override { return {}; }
    Result<std::unique_ptr<BackendInstance>> make_instance(int index) override {
      return std::unique_ptr<BackendInstance>(std::make_unique<Instance>(backend_, index));
    }
    std::map<std::string, std::string> properties() const override { return {}; }
    std::string_view platform() const override { return "recording"; }

   private:
    RecordingBackend& backend_;
    const Signature signature_;
    const int instances_;
  };
};

class WarmUpSampleTest : public ::testing::Test {
 protected:
  WarmUpSampleTest() {
    spec_.model = "m";
    spec_.max_batch_rows = 4;
    spec_.instance_count = 1;
    spec_.inputs = {{"x", DType::kFp32, Shape{-1, 3}, false}};
    spec_.outputs = {{"y", DType::kFp32, Shape{-1, 3}, false}};
  }
  WarmUpSample& sample(std::int64_t rows = 1, std::int64_t count = 1) {
    WarmUpSample& out = spec_.warm_up.emplace_back();
    out.name = "first";
    out.rows = rows;
    out.count = count;
    return out;
  }
  static WarmUpInput given(const std::string& name, DType dtype, const Shape& shape,
                           std::span<const std::byte> data) {
    return {name, dtype, shape, WarmUpInput::Fill::kData, {data.begin(), data.end()}};
  }
  static WarmUpInput random(const std::string& name, DType dtype, const Shape& shape) {
    return {name, dtype, shape, WarmUpInput::Fill::kRandom, {}};
  }
  Status load() {
    ModelVersion version(spec_, timer_);
    const Status status =
        version.load(backend_, [&](double, std::string_view what) { said_.emplace_back(what); });
    EXPECT_EQ(version.view().state, status.is_ok() ? VersionState::kWarming : VersionState::kFailed);
    if (status.is_ok()) {
      EXPECT_TRUE(version.start().is_ok());
      version.drain_begin();
      version.destroy();
    }
    return status;
  }
  // The message, when it is the right code.
  std::string refusal() {
    const Status status = load();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << status.message();
    return status.message();
  }

  RecordingBackend backend_;
  ExpiryTimer timer_;
  LoadSpec spec_;
  std::vector<std::string> said_;
};

TEST_F(WarmUpSampleTest, GivenDataIsOneRowAndRepeated) {
  const std::vector<float> row{1, 2, 3};
  sample(2, 3).inputs.push_back(given("x", DType::kFp32, {3}, bytes_of(row)));
  spec_.instance_count = 2;
  ASSERT_TRUE(load().is_ok());
  const auto seen = backend_.of_samples();
  ASSERT_EQ(seen.size(), 2U * 3U);
  const std::vector<float> rows{1, 2, 3, 1, 2, 3};
  for (std::size_t i = 0; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].instance, static_cast<int>(i / 3));
    EXPECT_EQ(seen[i].shapes[0], (Shape{2, 3}));
    EXPECT_TRUE(std::ranges::equal(seen[i].data[0], bytes_of(rows)));
  }
  EXPECT_NE(std::ranges::find(said_, "warming with \"first\""), said_.end());
}

TEST_F(WarmUpSampleTest, ZerosRunTooAfterTheSizesOwn) {
  ASSERT_TRUE(load().is_ok());
  const std::size_t before = backend_.seen.size();
  backend_.seen.clear();
  sample(3).inputs.push_back({"x", DType::kFp32, Shape{3}, WarmUpInput::Fill::kZero, {}});
  ASSERT_TRUE(load().is_ok());
  EXPECT_GE(backend_.seen.size(), before == 0 ? 1U : 2U);
  EXPECT_EQ(backend_.seen.back().shapes[0], (Shape{3, 3}));
  EXPECT_EQ(backend_.seen.back().data[0], std::vector<std::byte>(9 * sizeof(float)));
}

TEST_F(WarmUpSampleTest, RandomIsInRangeAndTheSameEachTime) {
  sample().inputs.push_back(random("x", DType::kFp32, {3}));
  ASSERT_TRUE(load().is_ok());
  ASSERT_TRUE(load().is_ok());
  const auto seen = backend_.of_samples();
  ASSERT_EQ(seen.size(), 2U);
  EXPECT_EQ(seen[0].data, seen[1].data);
  std::vector<float> values(3);
  std::memcpy(values.data(), seen[0].data[0].data(), 3 * sizeof(float));
  EXPECT_TRUE(std::ranges::all_of(values, [](float v) { return v >= 0 && v < 1; }));
  EXPECT_NE(values[0], values[1]);
}

TEST_F(WarmUpSampleTest, RandomOfEveryType) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    spec_.warm_up.clear();
    spec_.inputs[0].dtype = spec_.outputs[0].dtype = dtype;
    sample(2).inputs.push_back(random("x", dtype, {3}));
    ASSERT_TRUE(load().is_ok()) << dtype_name(dtype);
    const auto& data = backend_.seen.back().data[0];
    EXPECT_EQ(data.size(), 2 * 3 * (dtype == DType::kBytes ? 4 + 8 : dtype_size(dtype))) << dtype_name(dtype);
    if (dtype == DType::kInt64) {
      std::vector<std::int64_t> values(6);
      std::memcpy(values.data(), data.data(), data.size());
      EXPECT_TRUE(std::ranges::all_of(values, [](std::int64_t v) { return v == 0 || v == 1; }));
    }
  }
}

TEST_F(WarmUpSampleTest, OptionalInputsMayBeLeftOut) {
  spec_.inputs.push_back({"mask", DType::kInt32, Shape{-1, 1}, true});
  const std::vector<float> row{1, 2, 3};
  sample().inputs.push_back(given("x", DType::kFp32, {3}, bytes_of(row)));
  ASSERT_TRUE(load().is_ok());
  ASSERT_FALSE(backend_.of_samples().empty());
  EXPECT_TRUE(backend_.of_samples().back().data[1].empty());
}

TEST_F(WarmUpSampleTest, AModelThatDoesNotBatch) {
  spec_.max_batch_rows = 0;
  spec_.inputs[0].shape = spec_.outputs[0].shape = Shape{3};
  const std::vector<float> row{1, 2, 3};
  for (const std::int64_t rows : {0, 1}) {
    spec_.warm_up.clear();
    sample(rows).inputs.push_back(given("x", DType::kFp32, {3}, bytes_of(row)));
    ASSERT_TRUE(load().is_ok());
    EXPECT_EQ(backend_.of_samples().back().shapes[0], (Shape{3}));
  }
  spec_.warm_up[0].rows = 2;
  EXPECT_EQ(refusal(), "warm_up[\"first\"]: rows: got 2, want 0 or 1, because the model does not batch");
}

TEST_F(WarmUpSampleTest, Rows) {
  const std::vector<float> row{1, 2, 3};
  sample().inputs.push_back(given("x", DType::kFp32, {3}, bytes_of(row)));
  spec_.max_request_rows = 8;  // samples are not split
  for (const std::int64_t rows : {0, 5}) {
    spec_.warm_up[0].rows = rows;
    EXPECT_EQ(refusal(), "warm_up[\"first\"]: rows: got " + std::to_string(rows) + ", want 1 to 4");
  }
  spec_.warm_up[0].rows = 4;
  EXPECT_TRUE(load().is_ok());
}

TEST_F(WarmUpSampleTest, Count) {
  const std::vector<float> row{1, 2, 3};
  sample().inputs.push_back(given("x", DType::kFp32, {3}, bytes_of(row)));
  for (const std::int64_t count : {0, 100'001}) {
    spec_.warm_up[0].count = count;
    EXPECT_EQ(refusal(), "warm_up[\"first\"]: count: got " + std::to_string(count) + ", want 1 to 100000");
  }
}

TEST_F(WarmUpSampleTest, OpenDimensionsAndWrongShapes) {
  spec_.inputs[0].shape = spec_.outputs[0].shape = Shape{-1, -1};
  sample().inputs.push_back(random("x", DType::kFp32, {-1}));
  EXPECT_EQ(
      refusal(),
      "warm_up[\"first\"]: inputs[\"x\"].shape[0]: got -1, want 0 or more: a sample has no open dimension");
  spec_.warm_up[0].inputs[0].shape = Shape{3, 1};
  EXPECT_NE(refusal().find("inputs[\"x\"].shape: got rank 3, want 2"), std::string::npos);
}

TEST_F(WarmUpSampleTest, WrongData) {
  const std::vector<float> two{1, 2};
  sample().inputs.push_back(given("x", DType::kFp32, {3}, bytes_of(two)));
  EXPECT_EQ(refusal(), "warm_up[\"first\"]: inputs[\"x\"].data: got 8 bytes, want 12 (FP32 [3], one row)");
  spec_.inputs[0].dtype = spec_.outputs[0].dtype = DType::kBytes;
  const auto text = serialized({"a", "b"});
  spec_.warm_up[0].inputs[0] = given("x", DType::kBytes, {3}, text);
  EXPECT_NE(refusal().find("inputs[\"x\"].data: got 10 bytes, want 3 elements"), std::string::npos);
}

TEST_F(WarmUpSampleTest, WrongNamesAndTypes) {
  sample().inputs.push_back(random("z", DType::kFp32, {3}));
  EXPECT_NE(refusal().find("warm_up[\"first\"]: unexpected inference input 'z'"), std::string::npos);
  spec_.warm_up[0].inputs = {};
  EXPECT_NE(refusal().find("inputs[\"x\"]: missing"), std::string::npos);
  spec_.warm_up[0].inputs.push_back(random("x", DType::kInt32, {3}));
  EXPECT_NE(refusal().find("inputs[\"x\"].datatype: got INT32, want FP32"), std::string::npos);
}

TEST_F(WarmUpSampleTest, AModelThatFailsWithIt) {
  const std::vector<float> row{1, 2, 3};
  backend_.fail_on.assign(bytes_of(row).begin(), bytes_of(row).end());
  sample().inputs.push_back(given("x", DType::kFp32, {3}, bytes_of(row)));
  EXPECT_EQ(refusal(), "warm_up[\"first\"]: the model failed with inputs[\"x\"]: the device chokes on it");
}

}  // namespace
}  // namespace fastserve
