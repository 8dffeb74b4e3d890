#include "tensor/signature.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace fastserve {
namespace {

const Signature kSignature{
    {{"image", DType::kFp32, Shape{-1, 3}, false}, {"mask", DType::kBool, Shape{-1, 2}, true}},
    {{"y", DType::kFp32, Shape{-1, 3}, false}},
    4};

std::array<std::byte, 256> g_zeros{};

TensorView view(std::string_view name, DType dtype, Shape shape, std::size_t bytes) {
  return {name, dtype, shape, std::span(g_zeros).first(bytes)};
}

struct Case {
  std::vector<TensorView> inputs;
  std::vector<std::string> parts;  // of the message
};

TEST(Validate, FindsRowsAndOrder) {
  std::array<int, 2> order{};
  const std::vector<TensorView> inputs{view("mask", DType::kBool, {2, 2}, 4),
                                       view("image", DType::kFp32, {2, 3}, 24)};
  const auto rows = validate(kSignature, "m", inputs, order);
  ASSERT_TRUE(rows.is_ok()) << rows.status().message();
  EXPECT_EQ(rows.value(), 2);
  EXPECT_EQ(order, (std::array<int, 2>{1, 0}));
  const auto without = validate(kSignature, "m", std::span(inputs).subspan(1), order);
  ASSERT_TRUE(without.is_ok());
  EXPECT_EQ(order, (std::array<int, 2>{0, -1}));
}

TEST(Validate, EveryFaultNamesFieldAndValue) {
  const auto image = [](DType dtype, Shape shape, std::size_t bytes) {
    return view("image", dtype, shape, bytes);
  };
  const std::vector<Case> cases{
      {{}, {"expected 2 inputs but got 0 inputs for model 'm'", "inputs[\"image\"]: missing"}},
      {{view("x", DType::kFp32, {1, 3}, 12)}, {"unexpected inference input 'x'", "inputs[\"x\"]"}},
      {{image(DType::kFp32, {1, 3}, 12), image(DType::kFp32, {1, 3}, 12)}, {"already exists", "given twice"}},
      {{image(DType::kInt64, {1, 3}, 24)},
       {"data-type is 'INT64', but model 'm' expects 'FP32'", ".datatype: got INT64"}},
      {{image(DType::kFp32, {1, 4}, 16)},
       {"Expected [-1,3], got [1,4]", "inputs[\"image\"].shape[1]: got 4, want 3"}},
      {{image(DType::kFp32, {3}, 12)}, {"got rank 1, want 2"}},
      {{image(DType::kFp32, {-1, 3}, 12)}, {".shape[0]: got -1"}},
      {{image(DType::kFp32, {1, 3}, 11)},
       {"input byte size mismatch for input 'image'", "Expected 12, got 11"}},
      {{image(DType::kFp32, {5, 3}, 60)}, {"inference request batch-size must be <= 4 for 'm'", "got 5"}},
      {{image(DType::kFp32, {0, 3}, 0)}, {"got 0, want 1 or more"}},
      {{image(DType::kFp32, {2, 3}, 24), view("mask", DType::kBool, {1, 2}, 2)},
       {"batch size does not match"}},
      {{image(DType::kFp32, {INT64_MAX, 3}, 12)}, {"fewer than 2^40"}},
  };
  for (const Case& c : cases) {
    std::array<int, 2> order{};
    const auto result = validate(kSignature, "m", c.inputs, order);
    ASSERT_FALSE(result.is_ok());
    EXPECT_EQ(result.status().code(), Code::kInvalidArgument);
    for (const std::string& part : c.parts) {
      EXPECT_NE(result.status().message().find(part), std::string::npos)
          << part << "\n in: " << result.status().message();
    }
  }
}

TEST(Validate, BytesElementsMustFillTheData) {
  const Signature text{{{"t", DType::kBytes, Shape{-1}, false}}, {}, 4};
  std::array<int, 1> order{};
  const std::vector<TensorView> good{view("t", DType::kBytes, {2}, 8)};  // two empty elements
  EXPECT_TRUE(validate(text, "m", good, order).is_ok());
  for (const std::size_t bytes : {4, 7, 9, 12}) {
    const std::vector<TensorView> bad{view("t", DType::kBytes, {2}, bytes)};
    EXPECT_EQ(validate(text, "m", bad, order).status().code(), Code::kInvalidArgument) << bytes;
  }
}

TEST(Validate, WithoutBatchDimensionARequestIsOneRow) {
  const Signature plain{{{"x", DType::kUint8, Shape{7}, false}}, {}, 0};
  std::array<int, 1> order{};
  const std::vector<TensorView> inputs{view("x", DType::kUint8, {7}, 7)};
  EXPECT_EQ(validate(plain, "m", inputs, order).value(), 1);
}

TEST(Validate, DoesNotEchoLongNames) {
  const std::string name(10'000, 'n');
  std::array<int, 2> order{};
  const std::vector<TensorView> inputs{view(name, DType::kFp32, {1, 3}, 12)};
  EXPECT_LT(validate(kSignature, "m", inputs, order).status().message().size(), 1024U);
}

}  // namespace
}  // namespace fastserve
