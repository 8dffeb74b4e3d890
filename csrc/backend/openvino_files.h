// Which file of a version directory OpenVINO is to read. Knows names only, opens nothing.
// Thread: any.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace fastserve {

struct ModelFile {
  std::string path;         // what ov::Core::read_model takes; a directory for a SavedModel
  std::string_view format;  // "IR", "ONNX", "TensorFlow SavedModel", "TensorFlow Lite", "Paddle"
};

// `path` is a model file, a SavedModel directory or a version directory. In a version directory the usual names win
// (model.xml, model.onnx, model.savedmodel/, saved_model.pb, model.tflite, model.pdmodel, model.json); without one of them
// the only file with such an ending is taken.
// NOT_FOUND: lists what was looked for and what is there. INVALID_ARGUMENT: more than one model, or an ending that is none.
Result<ModelFile> find_model_file(const std::string& path);

}  // namespace fastserve
