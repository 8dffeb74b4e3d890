// Batches through the OpenVINO plug-in: results, prepared sizes, binding, instances, errors of a run.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <thread>

#include "backend/backend_conformance.h"
#include "backend/openvino_models.h"

namespace fastserve::test {
namespace {

std::vector<float> ramp(std::size_t count, float start) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = start + static_cast<float>(i % 7);
  return values;
}

TensorView view(const std::string& name, const Shape& shape, std::span<const float> values) {
  return {name, DType::kFp32, shape, bytes_of(values)};
}

class OpenVinoRun : public OpenVinoTest {
 protected:
  void load_and_make(const LoadSpec& spec) {
    auto loaded = load(spec);
    ASSERT_TRUE(loaded.is_ok()) << loaded.status().message();
    model_ = std::move(loaded).value();
    auto made = model_->make_instance(0);
    ASSERT_TRUE(made.is_ok()) << made.status().message();
    instance_ = std::move(made).value();
  }

  void load_linear(std::map<std::string, std::string> parameters = {}) {
    save(linear_model());
    LoadSpec with = spec();
    with.parameters.merge(parameters);
    load_and_make(with);
  }

  // Requests of these rows in one batch; each answer against the reference.
  void run_linear(BackendInstance& on, const std::vector<std::int64_t>& requests) {
    BatchRun run(model_->signature());
    std::vector<std::vector<float>> inputs;
    std::int64_t rows = 0;
    for (const std::int64_t n : requests) {
      inputs.push_back(ramp(static_cast<std::size_t>(n) * 4, static_cast<float>(rows % 5)));
      rows += n;
    }
    for (std::size_t i = 0; i < requests.size(); ++i)
      run.add(requests[i], {view("x", {requests[i], 4}, inputs[i])});
    const Status status = run.run(on, bucket_for(*model_, rows));
    ASSERT_TRUE(status.is_ok()) << status.message();
    for (std::size_t i = 0; i < requests.size(); ++i) {
      ASSERT_TRUE(run.response(i).status.is_ok()) << run.response(i).status.message();
      EXPECT_EQ(run.output<float>(i, 0), linear_reference(inputs[i]));
    }
  }

  std::unique_ptr<LoadedModel> model_;
  std::unique_ptr<BackendInstance> instance_;
};

TEST_F(OpenVinoRun, TinyModelIsPreparedForASetOfSizes) {
  load_linear();
  EXPECT_EQ(std::vector<std::int64_t>(model_->buckets().begin(), model_->buckets().end()),
            (std::vector<std::int64_t>{1, 2, 4, 8, 16, 32, 64}));
  EXPECT_EQ(model_->signature().max_batch_rows, 64);
  EXPECT_EQ(instance_->depth(), 1);
  EXPECT_EQ(model_->properties().at("compiled_models"), "7");
}

TEST_F(OpenVinoRun, RowsOfEveryCountAreRight) {
  load_linear();
  for (std::int64_t rows = 1; rows <= 64; ++rows) run_linear(*instance_, {rows});
}

TEST_F(OpenVinoRun, EveryRequestOfAPaddedBatchGetsItsOwnRows) {
  load_linear();
  run_linear(*instance_, {1, 2});
  run_linear(*instance_, {3, 1, 1, 5});
  run_linear(*instance_, {1, 63});
}

TEST_F(OpenVinoRun, DynamicServesEveryRowCountFromOneModel) {
  load_linear({{"prepared", "dynamic"}});
  EXPECT_FALSE(model_->pads());
  EXPECT_EQ(model_->properties().at("compiled_models"), "1");
  for (const std::int64_t rows : {1, 64, 3, 64, 2}) run_linear(*instance_, {rows});
  run_linear(*instance_, {3, 1, 1});
}

TEST_F(OpenVinoRun, StaticSizesEndWithTheMost) {
  save(linear_model());
  LoadSpec with = spec();
  with.max_batch_rows = 12;
  with.parameters["prepared"] = "static";
  load_and_make(with);
  EXPECT_EQ(std::vector<std::int64_t>(model_->buckets().begin(), model_->buckets().end()),
            (std::vector<std::int64_t>{1, 2, 4, 8, 12}));
  run_linear(*instance_, {12});
}

TEST_F(OpenVinoRun, AsynchronousRunsOverlapAndAnswerOnce) {
  load_linear({{"depth", "2"}});
  ASSERT_EQ(instance_->depth(), 2);
  const std::vector<float> x = ramp(4, 1);
  for (int round = 0; round < 200; ++round) {
    BatchRun first(model_->signature()), second(model_->signature());
    for (BatchRun* run : {&first, &second}) {
      run->add(1, {view("x", {1, 4}, x)});
      ASSERT_TRUE(run->gather(1).is_ok());
      run->start(*instance_);
    }
    for (BatchRun* run : {&second, &first}) {
      ASSERT_TRUE(run->wait().is_ok());
      EXPECT_EQ(run->finishes(), 1);
      EXPECT_EQ(run->output<float>(0, 0), linear_reference(x));
    }
  }
}

TEST_F(OpenVinoRun, OneMoreBatchThanTheDepthIsRefusedNotCrossed) {
  load_linear({{"depth", "1"}});
  // finish() of the first batch starts another one on the same thread: the slot is free by then.
  BatchRun first(model_->signature());
  const std::vector<float> x = ramp(4, 2);
  first.add(1, {view("x", {1, 4}, x)});
  ASSERT_TRUE(first.run(*instance_, 1).is_ok());
  // A size that nobody prepared.
  BatchRun odd(model_->signature());
  const std::vector<float> three = ramp(12, 0);
  odd.add(3, {view("x", {3, 4}, three)});
  const Status status = odd.run(*instance_, 3);
  EXPECT_EQ(status.code(), Code::kInternal);
  EXPECT_EQ(odd.finishes(), 1);
  EXPECT_EQ(odd.response(0).status.code(), Code::kInternal);
  run_linear(*instance_, {3});  // and the next one is served
}

// Inputs bound at addresses that are aligned to nothing, in memory that must not be written; outputs in the batch's memory.
TEST_F(OpenVinoRun, BoundInputsAreReadWhereTheyAre) {
  for (const char* prepared : {"static", "dynamic"}) {
    SCOPED_TRACE(prepared);
    load_linear({{"prepared", prepared}});
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    void* memory = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    for (const std::size_t offset : {0U, 1U, 2U, 3U, 4U, 8U, 20U, 33U}) {
      SCOPED_TRACE(offset);
      const std::vector<float> x = ramp(16, static_cast<float>(offset % 3));
      ASSERT_EQ(::mprotect(memory, page, PROT_READ | PROT_WRITE), 0);
      auto* at = static_cast<std::byte*>(memory) + offset;
      std::memcpy(at, x.data(), x.size() * sizeof(float));
      ASSERT_EQ(::mprotect(memory, page, PROT_READ), 0);
      BatchRun run(model_->signature());
      run.add(4, {{"x", DType::kFp32, {4, 4}, {at, x.size() * sizeof(float)}}});
      ASSERT_TRUE(run.run(*instance_, 4).is_ok());
      EXPECT_EQ(run.batch().inputs()[0].data, at) << "not bound";
      EXPECT_EQ(run.batch().inputs()[0].own, nullptr) << "copied";
      EXPECT_EQ(run.batch().outputs()[0].data, run.batch().outputs()[0].own);
      EXPECT_EQ(run.output<float>(0, 0), linear_reference(x));
    }
    ::munmap(memory, page);
  }
}

// A model whose first operation could work in place must not write into the client's request.
TEST_F(OpenVinoRun, NothingIsWrittenIntoABoundInput) {
  const auto x = input("x", {-1, 1024});
  const auto y = std::make_shared<op::Relu>(x);
  save(std::make_shared<ov::Model>(ov::ResultVector{output("y", y)}, ov::ParameterVector{x}));
  load_and_make(spec());
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  void* memory = ::mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  std::span<float> values(static_cast<float*>(memory), 1024);
  std::ranges::fill(values, -3.0F);
  ASSERT_EQ(::mprotect(memory, 2 * page, PROT_READ), 0);
  BatchRun run(model_->signature());
  run.add(1, {view("x", {1, 1024}, values)});
  ASSERT_TRUE(run.run(*instance_, 1).is_ok());
  EXPECT_EQ(values[1023], -3.0F);
  EXPECT_EQ(run.output<float>(0, 0), std::vector<float>(1024, 0.0F));
  run.clear();
  ::munmap(memory, 2 * page);
}

// Results that are kept do not change when the instance goes on.
TEST_F(OpenVinoRun, KeptResultsStay) {
  load_linear();
  const std::vector<float> a = ramp(4, 1), b = ramp(4, 5);
  BatchRun kept(model_->signature()), next(model_->signature());
  kept.add(1, {view("x", {1, 4}, a)});
  ASSERT_TRUE(kept.run(*instance_, 1).is_ok());
  next.add(1, {view("x", {1, 4}, b)});
  ASSERT_TRUE(next.run(*instance_, 1).is_ok());
  EXPECT_EQ(kept.output<float>(0, 0), linear_reference(a));
  EXPECT_EQ(next.output<float>(0, 0), linear_reference(b));
}

TEST_F(OpenVinoRun, FreeDimensionsBehindTheRows) {
  // y = x + x with x [rows, length]; s = sum over length [rows]
  const auto x = input("x", {-1, -1});
  const auto twice = std::make_shared<op::Add>(x, x);
  const auto sum =
      std::make_shared<op::ReduceSum>(x, op::Constant::create(ov::element::i64, {1}, {1}), false);
  save(std::make_shared<ov::Model>(ov::ResultVector{output("y", twice), output("s", sum)},
                                   ov::ParameterVector{x}));
  load_and_make(spec());
  EXPECT_EQ(model_->signature().inputs[0].shape, (Shape{-1, -1}));
  EXPECT_EQ(model_->signature().outputs[0].shape, (Shape{-1, -1}));
  EXPECT_EQ(model_->signature().outputs[1].shape, (Shape{-1}));
  for (const std::int64_t length : {1, 5, 300, 2}) {
    SCOPED_TRACE(length);
    const std::vector<float> values(static_cast<std::size_t>(2 * length), 1.5F);
    BatchRun run(model_->signature());
    run.add(2, {view("x", {2, length}, values)});
    const Status status = run.run(*instance_, bucket_for(*model_, 2));
    ASSERT_TRUE(status.is_ok()) << status.message();
    EXPECT_EQ(run.response(0).outputs[0].shape, (Shape{2, length}));
    EXPECT_EQ(run.output<float>(0, 0), std::vector<float>(values.size(), 3.0F));
    EXPECT_EQ(run.output<float>(0, 1), std::vector<float>(2, 1.5F * static_cast<float>(length)));
  }
}

TEST_F(OpenVinoRun, OutputWhoseSizeOnlyTheRunTells) {
  const auto x = input("x", {6});
  const auto where = std::make_shared<op::NonZero>(x, ov::element::i64);
  save(std::make_shared<ov::Model>(ov::ResultVector{output("where", where)}, ov::ParameterVector{x}));
  load_and_make(spec());
  EXPECT_EQ(model_->signature().max_batch_rows, 0);
  EXPECT_EQ(model_->signature().outputs[0].shape, (Shape{1, -1}));
  const std::vector<float> two = {0, 1, 0, 0, 2, 0}, four = {1, 1, 0, 0, 2, 3};
  BatchRun first(model_->signature()), second(model_->signature());
  first.add(1, {view("x", {6}, two)});
  ASSERT_TRUE(first.run(*instance_, 1).is_ok());
  second.add(1, {view("x", {6}, four)});
  ASSERT_TRUE(second.run(*instance_, 1).is_ok());
  EXPECT_EQ(first.output<std::int64_t>(0, 0), (std::vector<std::int64_t>{1, 4}));
  EXPECT_EQ(second.output<std::int64_t>(0, 0), (std::vector<std::int64_t>{0, 1, 4, 5}));
  EXPECT_EQ(second.response(0).outputs[0].shape, (Shape{1, 4}));
}

// Only pairs can be made of x, but the signature cannot say so. (openvino_shapes.h)
TEST_F(OpenVinoRun, ShapesThatTheModelRefusesAreTheClientsFaultAndSpoilNothing) {
  const auto x = input("x", {-1});
  const auto pairs =
      std::make_shared<op::Reshape>(x, op::Constant::create(ov::element::i64, {2}, {-1, 2}), false);
  save(std::make_shared<ov::Model>(ov::ResultVector{output("y", pairs)}, ov::ParameterVector{x}));
  for (const char* depth : {"1", "2"}) {
    SCOPED_TRACE(depth);
    LoadSpec with = spec();
    with.max_batch_rows = 0;
    with.parameters["depth"] = depth;
    with.parameters["INFERENCE_NUM_THREADS"] = "1";
    load_and_make(with);
    const std::vector<float> values = {1, 2, 3, 4, 5, 6, 7, 8};
    for (const std::int64_t length : {4, 3, 4, 4, 7, 7, 8, 1, 8, 4}) {
      SCOPED_TRACE(length);
      const std::span<const float> some(values.data(), static_cast<std::size_t>(length));
      BatchRun run(model_->signature());
      run.add(1, {view("x", {length}, some)});
      const Status status = run.run(*instance_, 1);
      EXPECT_EQ(run.finishes(), 1);
      if (length % 2 == 0) {
        ASSERT_TRUE(status.is_ok()) << status.message();
        EXPECT_EQ(run.response(0).outputs[0].shape, (Shape{length / 2, 2}));
        EXPECT_EQ(run.output<float>(0, 0), std::vector<float>(some.begin(), some.end()));
      } else {
        EXPECT_EQ(code_name(status.code()), "INVALID_ARGUMENT") << status.message();
        EXPECT_NE(status.message().find("x [" + std::to_string(length) + "]"), std::string::npos)
            << status.message();
      }
    }
  }
}

// The new shape of x comes with the request as a value: nothing but the run can tell.
TEST_F(OpenVinoRun, AFailingRunIsAnsweredAndTheNextIsServed) {
  const auto x = input("x", {6});
  const auto dims = input("dims", {2}, ov::element::i64);
  save(std::make_shared<ov::Model>(
      ov::ResultVector{output("y", std::make_shared<op::Reshape>(x, dims, false))},
      ov::ParameterVector{x, dims}));
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  for (const char* depth : {"1", "2"}) {
    SCOPED_TRACE(depth);
    LoadSpec with = spec();
    with.parameters["depth"] = depth;
    load_and_make(with);
    const auto run_with = [&](BatchRun& run, const std::vector<std::int64_t>& wanted) {
      run.add(1, {view("x", {6}, values), {"dims", DType::kInt64, {2}, std::as_bytes(std::span(wanted))}});
      return run.run(*instance_, 1);
    };
    BatchRun bad(model_->signature()), good(model_->signature());
    const Status status = run_with(bad, {4, 2});
    EXPECT_EQ(code_name(status.code()), "INTERNAL") << status.message();
    EXPECT_EQ(status.message().find('\n'), std::string::npos) << status.message();
    EXPECT_EQ(bad.finishes(), 1);
    EXPECT_TRUE(run_with(good, {3, 2}).is_ok());
    EXPECT_EQ(good.response(0).outputs.at(0).shape, (Shape{3, 2}));
    EXPECT_EQ(good.output<float>(0, 0), values);
  }
}

TEST_F(OpenVinoRun, InstancesRunAtTheSameTimeWithoutMixing) {
  save(linear_model());
  for (const char* prepared : {"static", "dynamic"}) {
    SCOPED_TRACE(prepared);
    LoadSpec with = spec();
    with.instance_count = 3;
    with.parameters["prepared"] = prepared;
    load_and_make(with);
    EXPECT_EQ(model_->instance_count(), 3);
    std::vector<std::unique_ptr<BackendInstance>> instances;
    for (int i = 0; i < 3; ++i) instances.push_back(std::move(model_->make_instance(i)).value());
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([&, i] {
        for (int n = 0; n < 100; ++n)
          run_linear(*instances[static_cast<std::size_t>(i)], {1 + (n + i) % 5, i + 1});
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

// 1, 0, 1, 2 (bool: 1, 0, 1, 1). The CPU plug-in computes 64-bit numbers in 32 bits, so larger ones would not come through.
std::vector<std::byte> four_elements(DType dtype) {
  std::vector<std::byte> bytes;
  for (const int value : {1, 0, 1, dtype == DType::kBool ? 1 : 2}) {
    std::array<std::byte, 8> element{};
    if (dtype == DType::kFp64) {
      const double number = value * 0.5;
      std::memcpy(element.data(), &number, sizeof number);
    } else if (dtype == DType::kFp32) {
      const float number = static_cast<float>(value) * 0.5F;
      std::memcpy(element.data(), &number, sizeof number);
    } else if (dtype == DType::kFp16 || dtype == DType::kBf16) {
      element[1] = static_cast<std::byte>(0x3c + value);  // some number in either
    } else {
      element[0] = static_cast<std::byte>(value);
    }
    bytes.insert(bytes.end(), element.begin(),
                 element.begin() + static_cast<std::ptrdiff_t>(dtype_size(dtype)));
  }
  return bytes;
}

// One typed value through an identity-like model of every element type.
class OpenVinoTypes : public OpenVinoRun, public ::testing::WithParamInterface<DType> {};

TEST_P(OpenVinoTypes, GoThroughUnchanged) {
  static const std::map<DType, ov::element::Type> types = {
      {DType::kBool, ov::element::boolean}, {DType::kUint8, ov::element::u8},
      {DType::kUint16, ov::element::u16},   {DType::kUint32, ov::element::u32},
      {DType::kUint64, ov::element::u64},   {DType::kInt8, ov::element::i8},
      {DType::kInt16, ov::element::i16},    {DType::kInt32, ov::element::i32},
      {DType::kInt64, ov::element::i64},    {DType::kFp16, ov::element::f16},
      {DType::kBf16, ov::element::bf16},    {DType::kFp32, ov::element::f32},
      {DType::kFp64, ov::element::f64}};
  const DType dtype = GetParam();
  const auto x = input("x", {-1, 2}, types.at(dtype));
  const auto y =
      std::make_shared<op::Reshape>(x, op::Constant::create(ov::element::i64, {3}, {0, 2, 1}), true);
  save(std::make_shared<ov::Model>(ov::ResultVector{output("y", y)}, ov::ParameterVector{x}));
  load_and_make(spec());
  EXPECT_EQ(model_->signature().inputs[0].dtype, dtype);
  EXPECT_EQ(model_->signature().outputs[0].dtype, dtype);
  const std::vector<std::byte> bytes = four_elements(dtype);
  BatchRun run(model_->signature());
  run.add(2, {{"x", dtype, {2, 2}, bytes}});
  const Status status = run.run(*instance_, bucket_for(*model_, 2));
  ASSERT_TRUE(status.is_ok()) << status.message();
  const auto& out = run.response(0).outputs.at(0);
  ASSERT_EQ(out.data.size(), bytes.size());
  EXPECT_TRUE(std::ranges::equal(out.data, bytes));
}

INSTANTIATE_TEST_SUITE_P(All, OpenVinoTypes,
                         ::testing::Values(DType::kBool, DType::kUint8, DType::kUint16, DType::kUint32,
                                           DType::kUint64, DType::kInt8, DType::kInt16, DType::kInt32,
                                           DType::kInt64, DType::kFp16, DType::kBf16, DType::kFp32,
                                           DType::kFp64),
                         [](const auto& each) { return std::string(dtype_name(each.param)); });

// Every backend's suite, on the shipped IR, with and without a static set of sizes, in line and asynchronous.
template <class Variant>
struct OpenVinoSubject {
  static Backend& backend() { return openvino_plugin(); }
  static LoadSpec good() {
    LoadSpec spec;
    spec.model = "m";
    spec.path = std::string(FASTSERVE_SOURCE_DIR) + "/tests/fixtures/models/ir/1";
    spec.instance_count = 2;
    spec.parameters = Variant::parameters();
    return spec;
  }
  static std::vector<LoadSpec> wrong() {
    std::vector<LoadSpec> specs(5, good());
    specs[0].path = "/nowhere";
    specs[1].parameters["NO_SUCH_THING"] = "1";
    specs[2].parameters["prepared"] = "sometimes";
    specs[3].inputs = {{"nobody", DType::kFp32, {-1, 4}, false}};
    specs[4].instance_count = -1;
    return specs;
  }
};
struct StaticSizes {
  static std::map<std::string, std::string> parameters() { return {{"prepared", "static"}, {"depth", "1"}}; }
};
struct DynamicAsync {
  static std::map<std::string, std::string> parameters() { return {{"prepared", "dynamic"}, {"depth", "3"}}; }
};
INSTANTIATE_TYPED_TEST_SUITE_P(OpenVinoStatic, BackendConformance, OpenVinoSubject<StaticSizes>);
INSTANTIATE_TYPED_TEST_SUITE_P(OpenVinoAsync, BackendConformance, OpenVinoSubject<DynamicAsync>);

}  // namespace
}  // namespace fastserve::test
