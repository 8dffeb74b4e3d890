// Small OpenVINO models made in code, written as IR into a folder of the test, and the plug-in that is to serve them.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <openvino/openvino.hpp>
#include <openvino/opsets/opset8.hpp>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/registry.h"

namespace fastserve::test {

namespace op = ov::opset8;

// By the registry and dlopen, as the server gets it.
inline Backend& openvino_plugin() {
  static BackendRegistry registry;
  static Backend* backend = [] {
    registry.add_plugin("openvino", std::string(FASTSERVE_PLUGIN_DIR) + "/libfastserve_openvino.so");
    auto found = registry.find("openvino");
    return found.is_ok() ? *found : nullptr;
  }();
  if (backend == nullptr)
    throw std::runtime_error("the plug-in does not load: " + registry.find("openvino").status().message());
  return *backend;
}

inline std::shared_ptr<op::Parameter> input(const std::string& name, const ov::PartialShape& shape,
                                            ov::element::Type type = ov::element::f32) {
  auto parameter = std::make_shared<op::Parameter>(type, shape);
  if (!name.empty()) parameter->output(0).set_names({name});
  return parameter;
}

inline std::shared_ptr<op::Result> output(const std::string& name, const ov::Output<ov::Node>& value) {
  auto result = std::make_shared<op::Result>(value);
  if (!name.empty()) result->output(0).set_names({name});
  return result;
}

// y = relu(x W + b): x [rows,4], y [rows,3]; W[i][j] = i - j, b[j] = j. Exact in every precision for small whole numbers.
inline std::shared_ptr<ov::Model> linear_model(const ov::Dimension& rows = ov::Dimension::dynamic()) {
  std::vector<float> w, b;
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 3; ++j) w.push_back(static_cast<float>(i - j));
  }
  for (int j = 0; j < 3; ++j) b.push_back(static_cast<float>(j));
  const auto x = input("x", {rows, 4});
  const auto product = std::make_shared<op::MatMul>(x, op::Constant::create(ov::element::f32, {4, 3}, w));
  const auto sum = std::make_shared<op::Add>(product, op::Constant::create(ov::element::f32, {1, 3}, b));
  return std::make_shared<ov::Model>(ov::ResultVector{output("y", std::make_shared<op::Relu>(sum))},
                                     ov::ParameterVector{x});
}

// The same by hand.
inline std::vector<float> linear_reference(const std::vector<float>& x) {
  std::vector<float> y;
  for (std::size_t row = 0; row * 4 < x.size(); ++row) {
    for (int j = 0; j < 3; ++j) {
      float sum = static_cast<float>(j);
      for (int i = 0; i < 4; ++i) sum += x[row * 4 + static_cast<std::size_t>(i)] * static_cast<float>(i - j);
      y.push_back(sum > 0 ? sum : 0);
    }
  }
  return y;
}

// A temporary version directory per test.
class OpenVinoTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    directory_ = std::filesystem::temp_directory_path() /
                 ("fastserve_openvino_" + std::to_string(::getpid()) + "_" + test->name());
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void save(const std::shared_ptr<ov::Model>& model, const std::string& name = "model") {
    ov::serialize(model, (directory_ / (name + ".xml")).string(), (directory_ / (name + ".bin")).string());
  }

  // Exact arithmetic unless a test says otherwise: OpenVINO takes bf16 by itself where the CPU has it.
  LoadSpec spec() const {
    LoadSpec spec;
    spec.model = "m";
    spec.backend = "openvino";
    spec.path = directory_.string();
    spec.parameters = {{"INFERENCE_PRECISION_HINT", "f32"}};
    return spec;
  }

  static Result<std::unique_ptr<LoadedModel>> load(const LoadSpec& spec) {
    return openvino_plugin().load(spec, {});
  }

  // The message of a load that must fail with `code`.
  static std::string refusal(const LoadSpec& spec, Code code) {
    const auto loaded = load(spec);
    if (loaded.is_ok()) {
      ADD_FAILURE() << "loaded";
      return {};
    }
    EXPECT_EQ(loaded.status().code(), code) << loaded.status().message();
    EXPECT_EQ(loaded.status().message().find('\n'), std::string::npos)
        << "more than one line: " << loaded.status().message();
    return loaded.status().message();
  }

  std::filesystem::path directory_;
};

}  // namespace fastserve::test
