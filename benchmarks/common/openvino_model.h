// A model file as the tools on bare OpenVINO compile it.
#pragma once

#include <cstdint>
#include <memory>
#include <openvino/openvino.hpp>
#include <string>

namespace fastserve::bench {

// The model with its first dimension, of every input, fixed to `batch`. Throws when another dimension is open.
std::shared_ptr<ov::Model> read_with_batch(ov::Core& core, const std::string& path, std::int64_t batch);

}  // namespace fastserve::bench
