// Records between server and worker: what a hostile worker may write, cut at every byte and with every byte changed.
#include "backend/worker_frame.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "backend/batch_run.h"
#include "backend/worker_wire.h"

namespace fastserve {
namespace {

using test::BatchRun;
using worker::Answered;
using worker::RecordReader;
using worker::RecordWriter;

const Signature kSignature{{{"x", DType::kFp32, Shape{-1, 2}}},
                           {{"y", DType::kFp32, Shape{-1, 2}}, {"s", DType::kBytes, Shape{-1, 1}}},
                           8};

void put_output(std::uint32_t index, DType dtype, const Shape& shape, std::uint64_t at, std::uint64_t bytes,
                RecordWriter& out) {
  out.put(index);
  out.put(static_cast<std::uint8_t>(dtype));
  out.put(static_cast<std::uint32_t>(shape.rank()));
  for (const std::int64_t dim : shape.dims()) out.put(dim);
  out.put(at);
  out.put(bytes);
}

void put_parameters(std::size_t count, RecordWriter& out) {
  out.put(static_cast<std::uint32_t>(count));
  for (std::size_t i = 0; i < count; ++i) {
    out.put_text("p" + std::to_string(i));
    out.put(static_cast<worker::Kind>(i % 5));
    switch (static_cast<worker::Kind>(i % 5)) {
      case worker::Kind::kBool:
        out.put(std::uint8_t{1});
        break;
      case worker::Kind::kInt:
        out.put(std::int64_t{-5});
        break;
      case worker::Kind::kUint:
        out.put(~std::uint64_t{0});
        break;
      case worker::Kind::kDouble:
        out.put(0.25);
        break;
      case worker::Kind::kString:
        out.put_text("text");
    }
  }
}

// One slot of one row: y at 0, s (one empty string) at 64; and parameters.
RecordWriter good_reply(std::size_t parameters = 5) {
  RecordWriter out;
  out.put(static_cast<std::uint8_t>(Answered::kBySlot));
  out.put(std::uint32_t{1});
  out.put(std::uint8_t{0});
  out.put(std::uint32_t{2});
  put_output(0, DType::kFp32, Shape{1, 2}, 0, 8, out);
  put_output(1, DType::kBytes, Shape{1, 1}, 64, 4, out);
  put_parameters(parameters, out);
  return out;
}

class Reply : public ::testing::Test {
 protected:
  Reply() : block_(WorkerBlock::make(std::make_shared<WorkerMemory>(), 256)), run_(kSignature) {
    std::memset(block_->data(), 0, block_->size());
    run_.add_zeros(1);
    EXPECT_TRUE(run_.gather(1).is_ok());
  }
  BatchReply read(std::span<const std::byte> record) {
    return read_reply(record, {block_->data(), 128}, *block_, run_.batch());
  }
  Status answer() {
    run_.batch().finish(Status::ok());
    static_cast<void>(run_.wait());
    return run_.response(0).status;
  }

  std::shared_ptr<WorkerBlock> block_;
  BatchRun run_;
};

TEST_F(Reply, OutputsAreViewsAndStringsAreCopies) {
  const float values[] = {1, 2};
  std::memcpy(block_->data(), values, sizeof values);
  ASSERT_TRUE(read(good_reply().bytes()).status.is_ok());
  ASSERT_TRUE(answer().is_ok()) << answer().message();
  EXPECT_EQ(run_.output<float>(0, 0), (std::vector<float>{1, 2}));
  EXPECT_EQ(run_.response(0).outputs[0].data.data(), block_->data());
  EXPECT_NE(run_.response(0).outputs[1].data.data(), block_->data() + 64);
}

TEST_F(Reply, ParametersAreTheAnswers) {
  ASSERT_TRUE(read(good_reply().bytes()).status.is_ok());
  ASSERT_TRUE(answer().is_ok()) << answer().message();
  const auto parameters = run_.response(0).parameters;
  ASSERT_NE(parameters, nullptr);
  ASSERT_EQ(parameters->size(), 5U);
  EXPECT_EQ((*parameters)[0].name, "p0");
  EXPECT_TRUE(std::get<bool>((*parameters)[0].value));
  EXPECT_EQ(std::get<std::int64_t>((*parameters)[1].value), -5);
  EXPECT_EQ(std::get<std::uint64_t>((*parameters)[2].value), ~std::uint64_t{0});
  EXPECT_EQ(std::get<double>((*parameters)[3].value), 0.25);
  EXPECT_EQ(std::get<std::string>((*parameters)[4].value), "text");
}

TEST_F(Reply, WithoutParametersThereAreNone) {
  ASSERT_TRUE(read(good_reply(0).bytes()).status.is_ok());
  ASSERT_TRUE(answer().is_ok());
  EXPECT_EQ(run_.response(0).parameters, nullptr);
}

TEST_F(Reply, MoreParametersThanTheLimitAreMalformed) {
  EXPECT_FALSE(read(good_reply(worker::kMostParameters).bytes()).malformed);
  EXPECT_TRUE(read(good_reply(worker::kMostParameters + 1).bytes()).malformed);
}

TEST_F(Reply, CutAnywhereIsMalformed) {
  const RecordWriter good = good_reply();
  for (std::size_t size = 0; size < good.size(); ++size)
    EXPECT_TRUE(read(good.bytes().first(size)).malformed) << size;
}

TEST_F(Reply, AnyByteChangedIsMalformedOrAFault) {
  const RecordWriter good = good_reply();
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      std::vector<std::byte> bytes(good.bytes().begin(), good.bytes().end());
      bytes[at] ^= static_cast<std::byte>(flip);
      BatchRun run(kSignature);
      run.add_zeros(1);
      ASSERT_TRUE(run.gather(1).is_ok());
      const BatchReply reply = read_reply(bytes, {block_->data(), 128}, *block_, run.batch());
      run.batch().finish(reply.status);
      static_cast<void>(
          run.wait());  // checks shapes and sizes against the data: must not read outside of the room
    }
  }
}

TEST_F(Reply, PlacesOutsideOfTheRoomAreMalformed) {
  const auto with_place = [](std::uint64_t at, std::uint64_t bytes) {
    RecordWriter out;
    out.put(static_cast<std::uint8_t>(Answered::kWhole));
    out.put(std::uint32_t{1});
    put_output(0, DType::kFp32, Shape{1, 2}, at, bytes, out);
    return out;
  };
  EXPECT_FALSE(read(with_place(120, 8).bytes()).malformed);
  EXPECT_TRUE(read(with_place(121, 8).bytes()).malformed);
  EXPECT_TRUE(read(with_place(129, 0).bytes()).malformed);
  EXPECT_TRUE(read(with_place(UINT64_MAX, 8).bytes()).malformed);
  EXPECT_TRUE(read(with_place(8, UINT64_MAX).bytes()).malformed);
}

TEST_F(Reply, OneErrorForAll) {
  RecordWriter out;
  out.put(static_cast<std::uint8_t>(Answered::kFailed));
  out.put(static_cast<std::uint8_t>(Code::kInvalidArgument));
  out.put_text("no");
  const BatchReply reply = read(out.bytes());
  EXPECT_EQ(reply.status.code(), Code::kInvalidArgument);
  EXPECT_EQ(reply.status.message(), "no");
}

TEST(Description, RoundTripAndCuts) {
  RecordWriter out;
  out.put(std::uint8_t{0});
  out.put(std::int64_t{4});
  for (const char* name : {"in", "out"}) {
    out.put(std::uint32_t{1});
    out.put_text(name);
    out.put(static_cast<std::uint8_t>(DType::kInt64));
    out.put(std::uint32_t{2});
    out.put(std::int64_t{-1});
    out.put(std::int64_t{3});
    out.put(std::uint8_t{0});
  }
  out.put(std::uint32_t{1});
  out.put_text("a");
  out.put_text("b");
  out.put_text("python");
  const auto got = read_worker_description(out.bytes());
  ASSERT_TRUE(got.is_ok());
  EXPECT_EQ(got->signature.max_batch_rows, 4);
  EXPECT_EQ(got->signature.inputs[0].shape.str(), "[-1,3]");
  EXPECT_EQ(got->properties.at("a"), "b");
  EXPECT_EQ(got->platform, "python");
  for (std::size_t size = 0; size < out.size(); ++size)
    EXPECT_FALSE(read_worker_description(out.bytes().first(size)).is_ok()) << size;
}

TEST(WorkerMemory, BlocksComeBackAndAreFound) {
  const auto memory = std::make_shared<WorkerMemory>();
  std::byte* const first = memory->allocate(100);
  const auto place = memory->place_of(first);
  ASSERT_TRUE(place.has_value());
  EXPECT_EQ(place->offset % 64, 0U);
  memory->free(first, 100);
  EXPECT_EQ(memory->allocate(128), first);  // of the same size class
  EXPECT_EQ(memory->segments(), 1U);
  std::byte* const large =
      memory->allocate(std::size_t{5} << 20);  // more than what is left of the first segment
  ASSERT_NE(large, nullptr);
  EXPECT_EQ(memory->place_of(large)->segment, 1U);
  EXPECT_EQ(memory->allocate(WorkerMemory::kMostBlockBytes + 1), nullptr);
  int elsewhere = 0;
  EXPECT_FALSE(memory->place_of(reinterpret_cast<std::byte*>(&elsewhere)).has_value());
}

TEST(Record, AReaderNeverPassesTheEnd) {
  RecordWriter out;
  out.put(std::uint32_t{1000});  // a text's length, and no text
  RecordReader in(out.bytes());
  EXPECT_EQ(in.get_text(), "");
  EXPECT_FALSE(in.ok());
  EXPECT_EQ(in.get<std::uint64_t>(), 0U);
}

}  // namespace
}  // namespace fastserve
