// Reads a model from memory (LoadSpec::in_memory). The weights stay in that memory as long as OpenVINO refers to them, and are
// overwritten after that; so is the model's text, right after it was read.
// Thread: loader. Throws what OpenVINO throws.
#pragma once

#include <memory>
#include <openvino/openvino.hpp>

#include "backend/model_bytes.h"

namespace fastserve {

std::shared_ptr<ov::Model> read_model_in_memory(ov::Core& core, ModelBytes::Parts parts);

}  // namespace fastserve
