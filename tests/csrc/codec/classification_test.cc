#include "codec/classification.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace fastserve {
namespace {

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

std::vector<std::string> texts(std::span<const std::byte> data) {
  std::vector<std::string> out;
  while (!data.empty()) {
    std::uint32_t size = 0;
    std::memcpy(&size, data.data(), 4);
    out.emplace_back(reinterpret_cast<const char*>(data.data()) + 4, size);
    data = data.subspan(4 + size);
  }
  return out;
}

template <class T>
std::vector<std::string> top(DType dtype, const std::vector<T>& row, std::int64_t k,
                             const std::vector<std::string>& labels = {}) {
  ByteBuffer out;
  const std::int64_t count = append_top_classes(dtype, bytes_of(row), k, labels, out);
  auto found = texts(out.span());
  EXPECT_EQ(found.size(), static_cast<std::size_t>(count));
  return found;
}

using Texts = std::vector<std::string>;

TEST(Classification, SortsByValueAndWritesSixDecimals) {
  EXPECT_EQ(top<float>(DType::kFp32, {0.25F, -3, 1.5F, 0}, 3),
            (Texts{"1.500000:2", "0.250000:0", "0.000000:3"}));
  EXPECT_EQ(top<double>(DType::kFp64, {1e300, 0.1234567}, 2)[1], "0.123457:1");
}

TEST(Classification, EqualValuesKeepTheOrderOfTheirIndex) {
  EXPECT_EQ(top<std::int32_t>(DType::kInt32, {5, 7, 5, 7, 7}, 4), (Texts{"7:1", "7:3", "7:4", "5:0"}));
  EXPECT_EQ(top<float>(DType::kFp32, {-0.0F, 0.0F}, 2), (Texts{"-0.000000:0", "0.000000:1"}));
}

TEST(Classification, NotANumberComesLast) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(top<float>(DType::kFp32, {nan, -inf, -nan, inf, 1}, 9),
            (Texts{"inf:3", "1.000000:4", "-inf:1", "nan:0", "nan:2"}));
}

TEST(Classification, MoreThanThereAreMeansAll) {
  EXPECT_EQ(top<std::uint8_t>(DType::kUint8, {1, 200}, 1'000'000'000), (Texts{"200:1", "1:0"}));
  EXPECT_TRUE(top<float>(DType::kFp32, {}, 3).empty());
}

TEST(Classification, LabelsWhereThereAre) {
  EXPECT_EQ(top<std::int64_t>(DType::kInt64, {1, 2, 3, 4}, 4, {"cat", "", "a:b"}),
            (Texts{"4:3", "3:2:a:b", "2:1", "1:0:cat"}));
}

TEST(Classification, EveryNumericDatatype) {
  EXPECT_EQ(top<std::uint8_t>(DType::kBool, {0, 1}, 1), (Texts{"1:1"}));
  EXPECT_EQ(top<std::uint16_t>(DType::kUint16, {0, 65535}, 1), (Texts{"65535:1"}));
  EXPECT_EQ(top<std::uint32_t>(DType::kUint32, {0, 4294967295U}, 1), (Texts{"4294967295:1"}));
  EXPECT_EQ(top<std::uint64_t>(DType::kUint64, {1, UINT64_MAX}, 1), (Texts{"18446744073709551615:1"}));
  EXPECT_EQ(top<std::int8_t>(DType::kInt8, {-128, -1}, 2), (Texts{"-1:1", "-128:0"}));
  EXPECT_EQ(top<std::int16_t>(DType::kInt16, {-3, 2}, 1), (Texts{"2:1"}));
  EXPECT_EQ(top<std::int64_t>(DType::kInt64, {INT64_MIN, INT64_MIN + 1}, 1),
            (Texts{"-9223372036854775807:1"}));
  // FP16: 1.5, smallest subnormal, -2, inf, nan. BF16: 1, -2.
  EXPECT_EQ(top<std::uint16_t>(DType::kFp16, {0x3E00, 0x0001, 0xC000, 0x7C00, 0x7E00}, 5),
            (Texts{"inf:3", "1.500000:0", "0.000000:1", "-2.000000:2", "nan:4"}));
  EXPECT_EQ(top<std::uint16_t>(DType::kBf16, {0xC000, 0x3F80}, 2), (Texts{"1.000000:1", "-2.000000:0"}));
  EXPECT_EQ(top<double>(DType::kFp64, {std::numeric_limits<double>::max()}, 1)[0].size(), 309U + 7 + 2);
}

struct Version final : ServedVersion {
  explicit Version(std::int64_t max_rows) : ServedVersion("m", 1) {
    signature.max_batch_rows = max_rows;
    signature.outputs = {{"p", DType::kFp32, Shape{-1, 3}, false}, {"s", DType::kBytes, Shape{-1, 1}, false}};
    labels["p"] = {"a", "b", "c"};
  }
};

TEST(ClassifyOutputs, AnswersRowByRowAndLeavesTheRest) {
  Version version(8);
  Request request;
  const std::vector<float> values{1, 2, 3, 6, 5, 4};
  request.requested_outputs = {{"p", 2, false}, {"p", 0, false}};
  request.response.outputs = {{0, DType::kFp32, Shape{2, 3}, bytes_of(values)},
                              {0, DType::kFp32, Shape{2, 3}, bytes_of(values)}};
  ASSERT_TRUE(classify_outputs(version, request).is_ok());
  const OutputTensor& out = request.response.outputs[0];
  EXPECT_EQ(out.dtype, DType::kBytes);
  EXPECT_EQ(out.shape.str(), "[2,2]");
  EXPECT_EQ(texts(out.data), (Texts{"3.000000:2:c", "2.000000:1:b", "6.000000:0:a", "5.000000:1:b"}));
  EXPECT_EQ(request.response.outputs[1].dtype, DType::kFp32);
}

TEST(ClassifyOutputs, AModelWithoutBatchesHasOneRow) {
  Version version(0);
  Request request;
  const std::vector<float> values{1, 2, 3, 6, 5, 4};
  request.requested_outputs = {{"p", 9, false}};
  request.response.outputs = {{0, DType::kFp32, Shape{2, 3}, bytes_of(values)}};
  ASSERT_TRUE(classify_outputs(version, request).is_ok());
  EXPECT_EQ(request.response.outputs[0].shape.str(), "[6]");
}

TEST(ClassifyOutputs, TextsHaveNoOrder) {
  Version version(8);
  Request request;
  request.requested_outputs = {{"s", 1, false}};
  request.response.outputs = {{1, DType::kBytes, Shape{0, 1}, {}}};
  const Status status = classify_outputs(version, request);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(
      status.message().find(R"(outputs["s"].parameters["classification"]: got an output of datatype BYTES)"),
      std::string::npos);
}

}  // namespace
}  // namespace fastserve
