// The OpenVINO backend: IR, ONNX, TensorFlow SavedModel, TensorFlow Lite and Paddle models on a CPU (or another device of
// OpenVINO). Built as a plug-in (libfastserve_openvino.so) that exports fastserve_backend(), so that a process without such
// a model never loads OpenVINO.
//
//   openvino_files       which file of the version directory
//   openvino_config      LoadSpec.parameters
//   openvino_signature   ports -> signature, batching or not
//   openvino_compile     prepared sizes, threads, how to run
//   openvino_instance    the hot path
//   openvino_shapes      shapes that the model would choke on
//   openvino_text        exceptions -> Status
#pragma once

#include "backend/backend.h"

namespace fastserve {

Backend& openvino_backend();  // lives for ever

}  // namespace fastserve

extern "C" fastserve::Backend* fastserve_backend();
