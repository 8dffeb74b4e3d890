#include "tensor/shape.h"

#include <gtest/gtest.h>

#include <vector>

#include "tensor/dtype.h"
#include "tensor/tensor.h"

namespace fastserve {
namespace {

TEST(DType, NamesRoundTrip) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(parse_dtype(dtype_name(dtype)), dtype);
  }
  EXPECT_EQ(parse_dtype("fp32"), std::nullopt);
  EXPECT_EQ(parse_dtype(""), std::nullopt);
  EXPECT_EQ(dtype_size(DType::kBf16), 2U);
  EXPECT_EQ(dtype_size(DType::kBytes), 0U);
}

TEST(Shape, CountsAndRefusesOverflow) {
  EXPECT_EQ((Shape{2, 3, 4}).elements(), 24);
  EXPECT_EQ(Shape{}.elements(), 1);
  EXPECT_EQ((Shape{0, 5}).elements(), 0);
  EXPECT_EQ((Shape{-1, 5}).elements(), std::nullopt);
  EXPECT_EQ((Shape{1 << 20, 1 << 20}).elements(), std::nullopt);
  EXPECT_EQ((Shape{INT64_MAX, INT64_MAX}).elements(), std::nullopt);
  EXPECT_EQ((Shape{0, INT64_MAX, INT64_MAX}).elements(), std::nullopt) << "a zero does not hide an overflow";
  EXPECT_EQ((Shape{4, 3}).byte_count(DType::kFp64), 96U);
  EXPECT_EQ((Shape{4, 3}).byte_count_from(DType::kFp64, 1), 24U);
  EXPECT_EQ((Shape{4, 3}).byte_count(DType::kBytes), std::nullopt);
}

TEST(Shape, KeepsAtMostMaxRank) {
  const std::vector<std::int64_t> dims(kMaxRank + 5, 1);
  EXPECT_EQ(Shape(std::span(dims)).rank(), kMaxRank);
}

TEST(Shape, PrintsAndCompares) {
  EXPECT_EQ((Shape{-1, 3}).str(), "[-1,3]");
  EXPECT_EQ(Shape{}.str(), "[]");
  EXPECT_EQ((Shape{1, 2}), (Shape{1, 2}));
  EXPECT_FALSE((Shape{1, 2}) == (Shape{1, 2, 1}));
}

std::vector<std::byte> raw(std::initializer_list<int> values) {
  std::vector<std::byte> out;
  for (const int value : values) out.push_back(static_cast<std::byte>(value));
  return out;
}

TEST(BytesExtent, WalksElementsAndNeverPastTheEnd) {
  const auto two = raw({1, 0, 0, 0, 'a', 0, 0, 0, 0});
  EXPECT_EQ(bytes_extent(two, 1), 5U);
  EXPECT_EQ(bytes_extent(two, 2), 9U);
  EXPECT_EQ(bytes_extent(two, 3), std::nullopt);
  EXPECT_EQ(bytes_extent(raw({5, 0, 0, 0, 'a'}), 1), std::nullopt);
  EXPECT_EQ(bytes_extent(raw({255, 255, 255, 255}), 1), std::nullopt);
  EXPECT_EQ(bytes_extent({}, 0), 0U);
}

}  // namespace
}  // namespace fastserve
