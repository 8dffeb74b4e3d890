// Cells of the local transport: what is written is read back; what is cut off or lies is refused by the right kind of error.
#include "local/local_frame.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

namespace fastserve {
namespace {

using Bytes = std::vector<std::byte>;

LocalRequest sample() {
  LocalRequest request;
  request.tag = 77;
  request.model = 3;
  request.priority = 2;
  request.timeout_us = 1000;
  request.queue_timeout_us = 500;
  request.id = "call-1";
  request.inputs.push_back({{}, 1, DType::kFp32, {2, 3}, 4, 64, 24});
  request.inputs.push_back({"mask", 0, DType::kBool, {2}, 5, 128, 2});
  request.outputs.push_back({"scores", 0, 4, 256, 80});
  request.parameters = {{"flag", true},
                        {"low", std::int64_t{-5}},
                        {"high", ~std::uint64_t{0}},
                        {"share", 0.25},
                        {"word", std::string_view("grüße")}};
  return request;
}

Bytes encoded(const LocalRequest& request, std::size_t cell_bytes = 1024) {
  Bytes cell(cell_bytes);
  EXPECT_TRUE(encode_request(cell, request).is_ok());
  cell.resize(used_bytes(cell));
  return cell;
}

template <class T>
void poke(Bytes& bytes, std::size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}

TEST(LocalFrame, RequestComesBack) {
  const Bytes cell = encoded(sample());
  LocalRequest read;
  ASSERT_TRUE(decode_request(cell, read).is_ok());
  EXPECT_EQ(read.kind, CellKind::kRequest);
  EXPECT_EQ(read.tag, 77U);
  EXPECT_EQ(read.model, 3U);
  EXPECT_EQ(read.priority, 2U);
  EXPECT_EQ(read.timeout_us, 1000U);
  EXPECT_EQ(read.queue_timeout_us, 500U);
  EXPECT_EQ(read.id, "call-1");
  ASSERT_EQ(read.inputs.size(), 2U);
  EXPECT_EQ(read.inputs[0].index, 1);
  EXPECT_EQ(read.inputs[0].shape, Shape({2, 3}));
  EXPECT_EQ(read.inputs[0].offset, 64U);
  EXPECT_EQ(read.inputs[1].name, "mask");
  EXPECT_EQ(read.inputs[1].dtype, DType::kBool);
  ASSERT_EQ(read.outputs.size(), 1U);
  EXPECT_EQ(read.outputs[0].name, "scores");
  EXPECT_EQ(read.outputs[0].room, 80U);
  ASSERT_EQ(read.parameters.size(), 5U);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(read.parameters[i].name, sample().parameters[i].name);
    EXPECT_EQ(read.parameters[i].value, sample().parameters[i].value);
  }
}

TEST(LocalFrame, ParametersAtTheirLimit) {
  LocalRequest request = sample();
  LocalRequest read;
  for (const std::size_t count : {kMostLocalParameters - 1, kMostLocalParameters, kMostLocalParameters + 1}) {
    request.parameters.assign(count, {"n", std::int64_t{1}});
    const Status status = decode_request(encoded(request, 4096), read);
    EXPECT_EQ(status.is_ok(), count <= kMostLocalParameters) << count;
    if (count > kMostLocalParameters) {
      EXPECT_EQ(status.message(), "parameters: got 65, want 64 or fewer");
    }
  }
  request.parameters.assign(1, {"", true});
  EXPECT_EQ(decode_request(encoded(request), read).message(), "parameters[0].name: is empty");
}

TEST(LocalFrame, AnswerComesBack) {
  LocalAnswer answer;
  answer.tag = 9;
  answer.outputs.push_back({DType::kInt64, {4, 1}, 32});
  Bytes cell(256);
  ASSERT_TRUE(encode_answer(cell, answer).is_ok());
  LocalAnswer read;
  ASSERT_TRUE(decode_answer(std::span(cell).first(used_bytes(cell)), read).is_ok());
  EXPECT_EQ(read.tag, 9U);
  EXPECT_EQ(read.code, Code::kOk);
  ASSERT_EQ(read.outputs.size(), 1U);
  EXPECT_EQ(read.outputs[0].shape, Shape({4, 1}));
  EXPECT_EQ(read.outputs[0].bytes, 32U);
}

TEST(LocalFrame, ParametersOfAnAnswerComeBack) {
  LocalAnswer answer;
  answer.outputs.push_back({DType::kInt64, {4, 1}, 32});
  answer.parameters = sample().parameters;
  Bytes cell(1024);
  ASSERT_TRUE(encode_answer(cell, answer).is_ok());
  cell.resize(used_bytes(cell));
  LocalAnswer read;
  ASSERT_TRUE(decode_answer(cell, read).is_ok());
  ASSERT_EQ(read.parameters.size(), 5U);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(read.parameters[i].name, answer.parameters[i].name);
    EXPECT_EQ(read.parameters[i].value, answer.parameters[i].value);
  }
  for (std::size_t size = 0; size < cell.size(); ++size)
    EXPECT_EQ(decode_answer(std::span(cell).first(size), read).code(), Code::kDataLoss) << size;
  Bytes small(cell.size() - 1);
  EXPECT_EQ(encode_answer(small, answer).code(), Code::kResourceExhausted);
  for (const std::size_t count : {kMostLocalParameters, kMostLocalParameters + 1}) {
    answer.parameters.assign(count, {"p", true});
    Bytes large(4096);
    ASSERT_TRUE(encode_answer(large, answer).is_ok());
    EXPECT_EQ(decode_answer(std::span(large).first(used_bytes(large)), read).is_ok(),
              count == kMostLocalParameters);
  }
}

TEST(LocalFrame, LongMessageIsCutWhereTheCellEnds) {
  const std::string text(5000, 'x');
  LocalAnswer answer;
  answer.code = Code::kInvalidArgument;
  answer.message = text;
  Bytes cell(256);
  ASSERT_TRUE(encode_answer(cell, answer).is_ok());
  LocalAnswer read;
  ASSERT_TRUE(decode_answer(std::span(cell).first(used_bytes(cell)), read).is_ok());
  EXPECT_EQ(read.code, Code::kInvalidArgument);
  EXPECT_EQ(read.message, text.substr(0, 256 - 24));
}

TEST(LocalFrame, TooLargeForTheCell) {
  LocalRequest request = sample();
  const std::size_t exact = encoded(request).size();
  Bytes cell(exact);
  EXPECT_TRUE(encode_request(cell, request).is_ok());
  cell.resize(exact - 1);
  EXPECT_EQ(encode_request(cell, request).code(), Code::kResourceExhausted);
}

TEST(LocalFrame, EveryCutIsBrokenAndNotWrong) {
  const Bytes whole = encoded(sample());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    LocalRequest read;
    EXPECT_EQ(decode_request(std::span(whole).first(size), read).code(), Code::kDataLoss) << size;
  }
}

TEST(LocalFrame, LengthBeyondTheCell) {
  Bytes cell(256);
  poke<std::uint16_t>(cell, 2, 256);
  EXPECT_EQ(used_bytes(cell), 256U);
  poke<std::uint16_t>(cell, 2, 257);
  EXPECT_EQ(used_bytes(cell), 0U);
}

TEST(LocalFrame, WrongRequestsNameTheField) {
  constexpr std::size_t kInputs = 48 + 6;  // head, id
  constexpr std::size_t kParameters =
      kInputs + 32 + 16 + (32 + 8 + 4) + (24 + 6);  // behind two inputs, an output
  struct Case {
    std::size_t at;
    std::uint8_t value;
    Code code;
    std::string_view text;
  };
  for (const Case& each : std::vector<Case>{
           {kInputs + 8, 14, Code::kInvalidArgument, "inputs[0].datatype: got number 14, want 0 to 13"},
           {kInputs + 9, 17, Code::kInvalidArgument, "inputs[0].shape: got 17 dimensions, want 16 or fewer"},
           {4, 65, Code::kInvalidArgument, "inputs: got 65, want 64 or fewer"},
           {6, 65, Code::kInvalidArgument, "outputs: got 65, want 64 or fewer"},
           {6, 0, Code::kInvalidArgument, "outputs: got none, want a place for each that is wanted"},
           {0, 9, Code::kDataLoss, "a cell that cannot be read: unknown kind"},
           {46, 65, Code::kInvalidArgument, "parameters: got 65, want 64 or fewer"},
           {46, 4, Code::kDataLoss, "a cell that cannot be read: bytes are left over"},
           {kParameters + 2, 5, Code::kInvalidArgument,
            "parameters[\"flag\"]: got a value of kind 5, want 0 to 4"},
           {kParameters + 3, 1, Code::kDataLoss, "a cell that cannot be read: reserved bits are set"},
           {kParameters + 4, 255, Code::kDataLoss, "a cell that cannot be read: a parameter is cut off"},
           {46, 0, Code::kDataLoss, "a cell that cannot be read: bytes are left over"},
       }) {
    Bytes cell = encoded(sample());
    poke<std::uint8_t>(cell, each.at, each.value);
    LocalRequest read;
    const Status status = decode_request(cell, read);
    EXPECT_EQ(status.code(), each.code) << each.text;
    EXPECT_EQ(status.message(), each.text);
    if (each.code == Code::kInvalidArgument) {
      EXPECT_EQ(read.tag, 77U);
    }
  }
}

TEST(LocalFrame, SixtyFourInputsAreTaken) {
  LocalRequest request = sample();
  request.inputs.assign(kMostLocalInputs, {{}, 0, DType::kFp32, {1}, 1, 0, 4});
  const Bytes cell = encoded(request, 8192);
  LocalRequest read;
  EXPECT_TRUE(decode_request(cell, read).is_ok());
  EXPECT_EQ(read.inputs.size(), kMostLocalInputs);
}

// Whatever stands in a cell: no crash, and either a request within the limits or one of the two kinds of error.
TEST(LocalFrame, RandomBytes) {
  std::mt19937 random(20261122);
  const Bytes seed = encoded(sample());
  LocalRequest read;
  LocalAnswer answer;
  for (int i = 0; i < 200'000; ++i) {
    Bytes cell = seed;
    const int changes = 1 + static_cast<int>(random() % 6);
    for (int c = 0; c < changes; ++c) cell[random() % cell.size()] = static_cast<std::byte>(random());
    cell.resize(random() % (cell.size() + 1));
    const Status status = decode_request(cell, read);
    ASSERT_TRUE(status.is_ok() || status.code() == Code::kDataLoss ||
                status.code() == Code::kInvalidArgument);
    if (status.is_ok()) {
      ASSERT_LE(read.inputs.size(), kMostLocalInputs);
    }
    static_cast<void>(decode_answer(cell, answer));
  }
}

}  // namespace
}  // namespace fastserve
