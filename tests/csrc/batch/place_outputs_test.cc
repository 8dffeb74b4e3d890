// Answers in memory that the request named: written there by the device when one request fills the batch, copied otherwise.
#include "batch/place_outputs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <vector>

#include "batch/arena.h"
#include "batch/batch.h"
#include "memory/region.h"
#include "support/samples.h"
#include "support/shared_object.h"

namespace fastserve {
namespace {

using Ints = std::vector<std::int32_t>;

// Requests of int32 rows of two to an echo; what the "device" does is `run`.
class PlaceOutputs : public ::testing::Test {
 protected:
  // A fresh batch; what was there before is gone.
  void use(Signature signature) {
    drop();
    signature_ = std::move(signature);
    arena_ = new BatchArena(signature_, plain_host_allocator(), 2);
    batch_ = arena_->acquire();
    hold_ = BatchRef(batch_);  // as an instance does
  }
  ~PlaceOutputs() override { drop(); }
  void drop() {
    requests_.clear();
    hold_.release();
    if (arena_ != nullptr) std::exchange(arena_, nullptr)->close();
  }
  Request& add(std::span<const std::byte> data, std::span<std::byte> destination) {
    Request& request = requests_.emplace_back();
    const auto rows = static_cast<std::int64_t>(data.size() / 8);
    request.inputs = {{"x", DType::kInt32, Shape{rows, 2}, data}};
    prepare(request, signature_);
    request.requested_outputs.push_back({.name = "y", .destination = destination});
    batch_->add(&request);
    return request;
  }
  void run(std::int64_t run_rows) {
    ASSERT_TRUE(batch_->gather(run_rows).is_ok());
    const BatchTensor& x = batch_->inputs()[0];
    std::byte* memory = batch_->output_memory(0, x.bytes);
    std::memcpy(memory, x.data, x.bytes);
    batch_->set_output(0, x.dtype, x.shape, memory, x.bytes);
    batch_->scatter(Status::ok());
  }
  static std::span<std::byte> bytes(Ints& values) { return std::as_writable_bytes(std::span(values)); }

  Signature signature_;
  BatchArena* arena_ = nullptr;
  Batch* batch_ = nullptr;
  BatchRef hold_;
  std::deque<Request> requests_;
};

TEST_F(PlaceOutputs, OneRequestThatFillsTheBatchIsNotCopied) {
  use(row_signature(75'000));
  Ints in(150'000, 7);  // 600 KB
  Ints out(150'000);
  const Request& request = add(bytes(in), bytes(out));
  run(75'000);
  ASSERT_TRUE(request.response.status.is_ok()) << request.response.status.message();
  EXPECT_EQ(batch_->copied_bytes, 0U);
  EXPECT_EQ(batch_->inputs()[0].own, nullptr);
  EXPECT_EQ(batch_->outputs()[0].own, nullptr) << "the device wrote where the request wanted it";
  EXPECT_EQ(out, in);
  EXPECT_TRUE(request.response.outputs[0].placed);
  EXPECT_EQ(static_cast<const void*>(request.response.outputs[0].data.data()), out.data());
}

TEST_F(PlaceOutputs, BatchedAndPaddedOnesAreCopiedAndCounted) {
  use(row_signature(8));
  Ints in{1, 2};
  Ints more{3, 4, 5, 6};
  Ints out(2);
  Ints out_more(6);  // larger than needed
  const Request& first = add(bytes(in), bytes(out));
  const Request& second = add(bytes(more), bytes(out_more));
  run(4);
  EXPECT_EQ(out, in);
  EXPECT_EQ(out_more, (Ints{3, 4, 5, 6, 0, 0}));
  EXPECT_EQ(second.response.outputs[0].data.size(), 16U);
  EXPECT_TRUE(first.response.outputs[0].placed);
  EXPECT_EQ(batch_->copied_bytes, 24U + 24U) << "in and out";
}

TEST_F(PlaceOutputs, APaddedBatchIsNotWrittenBeyondThePlace) {
  use(row_signature(8));
  Ints in{1, 2};
  Ints out{0, 0, -1, -1};
  add(bytes(in), bytes(out).first(8));
  run(2);
  EXPECT_EQ(out, (Ints{1, 2, -1, -1}));
}

TEST_F(PlaceOutputs, TooSmallByOneIsRefused) {
  for (const std::size_t size : {7U, 8U, 9U}) {
    use(row_signature(8));
    Ints in{1, 2};
    Ints out{-1, -1, -1};
    const Request& request = add(bytes(in), bytes(out).first(size));
    run(1);
    const Status& status = request.response.status;
    EXPECT_EQ(status.is_ok(), size >= 8);
    if (status.is_ok()) continue;
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_EQ(status.message(),
              "shared memory size specified with the request for output 'y' (7 bytes) should be at least 8 "
              "bytes to "
              "hold the results");
    EXPECT_TRUE(request.response.outputs.empty());
    EXPECT_EQ(request.response.batch.get(), nullptr);
    EXPECT_EQ(out, (Ints{-1, -1, -1})) << "nothing was written";
  }
}

TEST_F(PlaceOutputs, AnAnswerOntoItsOwnInputIsRight) {
  for (const std::size_t shift : {0U, 4U, 8U}) {
    use(row_signature(8));
    Ints memory{1, 2, 3, 4, 0, 0};
    add(bytes(memory).first(16), bytes(memory).subspan(shift));
    run(2);
    EXPECT_EQ(Ints(memory.begin() + static_cast<std::ptrdiff_t>(shift / 4),
                   memory.begin() + static_cast<std::ptrdiff_t>(shift / 4) + 4),
              (Ints{1, 2, 3, 4}))
        << shift;
  }
}

TEST_F(PlaceOutputs, StringsAreCheckedInOurMemoryAndCopied) {
  Signature signature;
  signature.inputs = {{"x", DType::kBytes, Shape{-1, 1}, false}};
  signature.outputs = {{"y", DType::kBytes, Shape{-1, 1}, false}};
  signature.max_batch_rows = 4;
  use(signature);
  const std::vector<std::byte> text = serialized({"one", ""});
  std::vector<std::byte> out(64);
  Request& request = requests_.emplace_back();
  request.inputs = {{"x", DType::kBytes, Shape{2, 1}, text}};
  prepare(request, signature_);
  request.requested_outputs.push_back({.name = "y", .destination = out});
  batch_->add(&request);
  run(2);
  ASSERT_TRUE(request.response.status.is_ok()) << request.response.status.message();
  EXPECT_NE(batch_->outputs()[0].own, nullptr);
  EXPECT_EQ(request.response.outputs[0].data.size(), text.size());
  EXPECT_TRUE(std::ranges::equal(std::span(out).first(text.size()), text));
}

TEST_F(PlaceOutputs, AnAnswerThatOthersKeepIsNotWrittenInPlace) {
  struct Tap final : AnswerTap {
    Request* answered(Request& request) override { return &request; }
  } tap;
  use(row_signature(8));
  Ints in{1, 2};
  Ints out{-1, -1};
  Request& request = add(bytes(in), bytes(out));
  request.tap = &tap;
  run(1);
  EXPECT_EQ(out, (Ints{-1, -1})) << "the tap has its turn first";
  EXPECT_EQ(place_outputs(request), 8U);
  EXPECT_EQ(out, in);
  EXPECT_EQ(place_outputs(request), 0U) << "again does nothing";
}

TEST_F(PlaceOutputs, ABrokenRegionDecidesTheAnswer) {
  ASSERT_TRUE(install_sigbus_guard().is_ok());
  SharedObject object(4096);
  const auto region = Region::open({"r", object.key(), 0, 4096}, RegionQuota::Share()).value();
  use(row_signature(8));
  Ints in{1, 2};
  Request& request = add(bytes(in), region->at(0, 8).value());
  request.regions.push_back(region);
  object.resize(0);
  run(1);
  EXPECT_EQ(request.response.status.code(), Code::kInvalidArgument);
  EXPECT_NE(request.response.status.message().find("region 'r' was truncated by its owner"),
            std::string::npos);
  EXPECT_TRUE(request.response.outputs.empty());
}

TEST_F(PlaceOutputs, ABrokenRegionExplainsWhatTheModelMadeOfIt) {
  ASSERT_TRUE(install_sigbus_guard().is_ok());
  SharedObject object(4096);
  const auto region = Region::open({"r", object.key(), 0, 4096}, RegionQuota::Share()).value();
  use(row_signature(8));
  Ints in{1, 2};
  Request& request = add(bytes(in), {});
  request.regions.push_back(region);
  object.resize(0);
  static_cast<void>(*static_cast<volatile std::byte*>(region->at(0, 1).value().data()));
  request.response.status = internal_error("the model met a zero");
  place_outputs(request);
  EXPECT_EQ(request.response.status.code(), Code::kInvalidArgument);
  request.response.status = {Code::kDeadlineExceeded, "Deadline Exceeded"};
  place_outputs(request);
  EXPECT_EQ(request.response.status.code(), Code::kDeadlineExceeded);
}

}  // namespace
}  // namespace fastserve
