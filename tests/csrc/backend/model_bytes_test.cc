#include "backend/model_bytes.h"

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <string_view>

namespace fastserve {
namespace {

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string_view text(WipedBytes& held) {
  return {reinterpret_cast<const char*>(held.bytes().data()), held.bytes().size()};
}

TEST(ModelBytes, GivesItsPartsOnce) {
  ModelBytes model(bytes("<net/>"), bytes("weights"));
  ModelBytes::Parts parts = model.take();
  ASSERT_NE(parts.model, nullptr);
  ASSERT_NE(parts.weights, nullptr);
  EXPECT_EQ(text(*parts.model), "<net/>");
  EXPECT_EQ(text(*parts.weights), "weights");
  parts = model.take();
  EXPECT_EQ(parts.model, nullptr);
  EXPECT_EQ(parts.weights, nullptr);
}

TEST(ModelBytes, WithoutWeights) {
  ModelBytes model(bytes("onnx"), {});
  EXPECT_EQ(model.take().weights, nullptr);
}

TEST(ModelBytes, IsACopy) {
  std::string source = "secret";
  WipedBytes held(bytes(source));
  source.assign(source.size(), '\0');
  EXPECT_EQ(text(held), "secret");
  WipedBytes empty(std::span<const std::byte>{});
  EXPECT_TRUE(empty.bytes().empty());
}

}  // namespace
}  // namespace fastserve
