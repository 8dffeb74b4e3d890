#include "batch/batch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <optional>

#include "batch/arena.h"
#include "support/device_memory_double.h"
#include "support/samples.h"

namespace fastserve {
namespace {

// No batch outlives the arena here; the arena frees itself when the last came back.
class BatchTest : public ::testing::Test {
 protected:
  void use(Signature signature) {
    signature_ = std::move(signature);
    arena_ = new BatchArena(signature_, plain_host_allocator(), 2);
    batch_ = arena_->acquire();
    hold_.emplace(batch_);
  }
  ~BatchTest() override {
    requests_.clear();
    hold_.reset();
    if (arena_ != nullptr) arena_->close();
  }
  Request& add(std::vector<TensorView> inputs) {
    Request& request = requests_.emplace_back();
    request.inputs = std::move(inputs);
    prepare(request, signature_);
    batch_->add(&request);
    return request;
  }
  Request& add_ints(const std::vector<std::int32_t>& values) {
    return add(
        {{"x", DType::kInt32, Shape{static_cast<std::int64_t>(values.size() / 2), 2}, bytes_of(values)}});
  }
  static std::vector<std::int32_t> ints(const std::byte* data, std::size_t bytes) {
    std::vector<std::int32_t> out(bytes / sizeof(std::int32_t));
    if (bytes != 0) std::memcpy(out.data(), data, bytes);
    return out;
  }
  static std::vector<std::int32_t> ints(std::span<const std::byte> data) {
    return ints(data.data(), data.size());
  }

  Signature signature_;
  BatchArena* arena_ = nullptr;
  Batch* batch_ = nullptr;
  std::optional<BatchRef> hold_;
  std::deque<Request> requests_;
};

using Ints = std::vector<std::int32_t>;

TEST_F(BatchTest, GathersRowsInOrderAndPadsWithZeros) {
  use(row_signature(8));
  const Ints first{1, 2};
  const Ints second{3, 4, 5, 6};
  add_ints(first);
  add_ints(second);
  ASSERT_TRUE(batch_->gather(4).is_ok());
  const BatchTensor& x = batch_->inputs()[0];
  EXPECT_EQ(x.shape, (Shape{4, 2}));
  EXPECT_EQ(ints(x.data, x.bytes), (Ints{1, 2, 3, 4, 5, 6, 0, 0}));
  EXPECT_EQ(batch_->rows(), 3);
  EXPECT_EQ(batch_->run_rows(), 4);
}

TEST_F(BatchTest, ASingleRequestThatFillsTheBucketIsBoundWithoutACopy) {
  use(row_signature(8));
  const Ints values{1, 2, 3, 4};
  add_ints(values);
  ASSERT_TRUE(batch_->gather(2).is_ok());
  EXPECT_EQ(static_cast<const void*>(batch_->inputs()[0].data), values.data());
  EXPECT_EQ(batch_->inputs()[0].own, nullptr);
}

TEST_F(BatchTest, ASingleRequestThatDoesNotFillItIsPadded) {
  use(row_signature(8));
  const Ints values{1, 2};
  add_ints(values);
  ASSERT_TRUE(batch_->gather(2).is_ok());
  EXPECT_EQ(ints(batch_->inputs()[0].data, batch_->inputs()[0].bytes), (Ints{1, 2, 0, 0}));
}

TEST_F(BatchTest, MemoryOfAGpuStaysWhereItIsOrComesToTheHost) {
  use(row_signature(8));
  DeviceMemoryDouble gpu(0, 64);
  gpu.put<std::int32_t>(0, {1, 2});
  const Ints values{3, 4};
  const auto* at = reinterpret_cast<const std::byte*>(gpu.address());
  add({{"x", DType::kInt32, Shape{1, 2}, {at, 8}, &gpu}});
  add_ints(values);
  ASSERT_TRUE(batch_->gather(4, true, 0).is_ok());
  ASSERT_EQ(batch_->device_parts().size(), 1U);
  EXPECT_EQ(batch_->device_parts()[0].offset, 0U);
  EXPECT_EQ(batch_->device_parts()[0].data.data(), at);
  EXPECT_EQ(ints(batch_->inputs()[0].data + 8, 24), (Ints{3, 4, 0, 0, 0, 0}));
  EXPECT_EQ(gpu.reads, 0);
  ASSERT_TRUE(batch_->gather(4, true, 1).is_ok());  // another GPU
  EXPECT_TRUE(batch_->device_parts().empty());
  EXPECT_EQ(ints(batch_->inputs()[0].data, 32), (Ints{1, 2, 3, 4, 0, 0, 0, 0}));
  gpu.lost = true;
  EXPECT_EQ(batch_->gather(4).code(), Code::kUnavailable);
}

TEST_F(BatchTest, ScatterSlicesRowsInTheOrderThatWasAskedFor) {
  Signature signature = row_signature(8);
  signature.outputs.push_back({"z", DType::kUint8, Shape{-1}, false});
  use(signature);
  const Ints one{1, 2};
  const Ints values{1, 2, 3, 4};
  Request& first = add_ints(one);
  Request& second = add_ints(values);
  second.output_order = {1, 0};
  ASSERT_TRUE(batch_->gather(4).is_ok());
  const Ints out{10, 11, 20, 21, 30, 31, 0, 0};
  std::memcpy(batch_->output_memory(0, 32), out.data(), 32);
  batch_->set_output(0, DType::kInt32, Shape{4, 2}, batch_->outputs()[0].own, 32);
  std::memcpy(batch_->output_memory(1, 4), "abcd", 4);
  batch_->set_output(1, DType::kUint8, Shape{4}, batch_->outputs()[1].own, 4);
  batch_->scatter(Status::ok());
  ASSERT_EQ(first.response.outputs.size(), 2U);
  EXPECT_EQ(ints(first.response.outputs[0].data), (Ints{10, 11}));
  EXPECT_EQ(first.response.outputs[0].shape, (Shape{1, 2}));
  ASSERT_EQ(second.response.outputs.size(), 2U);
  EXPECT_EQ(second.response.outputs[0].index, 1);
  EXPECT_EQ(std::memcmp(second.response.outputs[0].data.data(), "bc", 2), 0);
  EXPECT_EQ(ints(second.response.outputs[1].data), (Ints{20, 21, 30, 31}));
}

TEST_F(BatchTest, BytesAreJoinedPaddedWithEmptyElementsAndCutByElements) {
  use({{{"x", DType::kBytes, Shape{-1, 2}, false}}, {{"y", DType::kBytes, Shape{-1, 2}, false}}, 4});
  const auto a = serialized({"one", ""});
  const auto b = serialized({"three", "four", "", "six"});
  Request& first = add({{"x", DType::kBytes, Shape{1, 2}, a}});
  Request& second = add({{"x", DType::kBytes, Shape{2, 2}, b}});
  ASSERT_TRUE(batch_->gather(4).is_ok());
  const BatchTensor& x = batch_->inputs()[0];
  EXPECT_EQ(x.bytes, a.size() + b.size() + 8) << "one row of two empty elements";
  EXPECT_EQ(bytes_extent({x.data, x.bytes}, 8), x.bytes);
  std::memcpy(batch_->output_memory(0, x.bytes), x.data, x.bytes);
  batch_->set_output(0, DType::kBytes, x.shape, batch_->outputs()[0].own, x.bytes);
  batch_->scatter(Status::ok());
  EXPECT_TRUE(std::ranges::equal(first.response.outputs.at(0).data, a));
  EXPECT_TRUE(std::ranges::equal(second.response.outputs.at(0).data, b));
  EXPECT_EQ(second.response.outputs[0].shape, (Shape{2, 2}));
}

TEST_F(BatchTest, WithoutBatchDimensionOutputsGoOutWhole) {
  use({{{"x", DType::kInt32, Shape{2}, false}}, {{"y", DType::kInt32, Shape{-1}, false}}, 0});
  const Ints values{7, 8};
  Request& request = add({{"x", DType::kInt32, Shape{2}, bytes_of(values)}});
  ASSERT_TRUE(batch_->gather(1).is_ok());
  const Ints out{1, 2, 3};
  batch_->set_output(0, DType::kInt32, Shape{3}, bytes_of(out).data(), 12);
  batch_->scatter(Status::ok());
  EXPECT_EQ(ints(request.response.outputs.at(0).data), out);
  EXPECT_EQ(request.response.outputs[0].shape, (Shape{3}));
}

TEST_F(BatchTest, OutputsThatBreakThePromiseAreInternal) {
  use(row_signature(8));
  const Ints values{1, 2};
  const Ints out{1, 2, 3, 4, 5, 6, 7, 8};
  Request& request = add_ints(values);
  struct Broken {
    bool set;
    DType dtype;
    Shape shape;
    std::size_t bytes;
  };
  for (const Broken& broken :
       {Broken{false, DType::kInt32, Shape{2, 2}, 16}, Broken{true, DType::kFp32, Shape{2, 2}, 16},
        Broken{true, DType::kInt32, Shape{3, 2}, 24}, Broken{true, DType::kInt32, Shape{}, 4},
        Broken{true, DType::kInt32, Shape{2, 2}, 12}}) {
    batch_->clear();
    batch_->add(&request);
    ASSERT_TRUE(batch_->gather(2).is_ok());
    if (broken.set) batch_->set_output(0, broken.dtype, broken.shape, bytes_of(out).data(), broken.bytes);
    batch_->scatter(Status::ok());
    EXPECT_EQ(request.response.status.code(), Code::kInternal) << broken.shape.str();
    EXPECT_TRUE(request.response.outputs.empty());
  }
}

TEST_F(BatchTest, CutOffBytesOutputIsInternal) {
  use({{{"x", DType::kBytes, Shape{-1}, false}}, {{"y", DType::kBytes, Shape{-1}, false}}, 4});
  const auto a = serialized({"one"});
  Request& request = add({{"x", DType::kBytes, Shape{1}, a}});
  ASSERT_TRUE(batch_->gather(1).is_ok());
  batch_->set_output(0, DType::kBytes, Shape{1}, a.data(), a.size() - 1);
  batch_->scatter(Status::ok());
  EXPECT_EQ(request.response.status.code(), Code::kInternal);
}

TEST_F(BatchTest, AbsentOptionalInputIsNotPresent) {
  Signature signature = row_signature(8);
  signature.inputs.push_back({"mask", DType::kBool, Shape{-1, 1}, true});
  use(signature);
  const Ints values{1, 2};
  Request& without = add_ints(values);
  ASSERT_TRUE(batch_->gather(1).is_ok());
  EXPECT_TRUE(batch_->inputs()[0].present);
  EXPECT_FALSE(batch_->inputs()[1].present);
  EXPECT_FALSE(uniform(signature));
  const std::vector<std::uint8_t> mask{1};
  Request& with = add({{"x", DType::kInt32, Shape{1, 2}, bytes_of(values)},
                       {"mask", DType::kBool, Shape{1, 1}, bytes_of(mask)}});
  EXPECT_FALSE(may_share(signature, without, with));
  EXPECT_TRUE(may_share(signature, with, with));
}

TEST_F(BatchTest, AFailedRunAnswersEverySlotWithTheReason) {
  use(row_signature(8));
  const Ints values{1, 2};
  Request& first = add_ints(values);
  Request& second = add_ints(values);
  ASSERT_TRUE(batch_->gather(2).is_ok());
  batch_->scatter(internal_error("boom"));
  for (const Request* request : {&first, &second}) {
    EXPECT_EQ(request->response.status.message(), "boom");
    EXPECT_EQ(request->response.batch.get(), nullptr);
    EXPECT_TRUE(request->response.final);
  }
}

TEST_F(BatchTest, ASecondFinishDoesNothing) {
  use(row_signature(8));
  static int calls = 0;
  calls = 0;
  batch_->on_finish = [](Batch&, Status) { ++calls; };
  batch_->finish(Status::ok());
  batch_->finish(Status::ok());
  EXPECT_EQ(calls, 1);
  batch_->clear();
  batch_->finish(Status::ok());
  EXPECT_EQ(calls, 2);
}

TEST(MayShare, ComparesWhatLiesBehindTheRows) {
  const Signature open{{{"x", DType::kInt32, Shape{-1, -1}, false}}, {}, 8};
  EXPECT_FALSE(uniform(open));
  EXPECT_TRUE(uniform(row_signature(8)));
  EXPECT_TRUE(uniform(row_signature(0)));
  RowRequest narrow(nullptr, 1, 0, 2);
  RowRequest wide(nullptr, 1, 0, 3);
  RowRequest tall(nullptr, 3, 0, 2);
  for (RowRequest* r : {&narrow, &wide, &tall}) prepare(r->request, open);
  EXPECT_FALSE(may_share(open, narrow.request, wide.request));
  EXPECT_TRUE(may_share(open, narrow.request, tall.request));
}

}  // namespace
}  // namespace fastserve
