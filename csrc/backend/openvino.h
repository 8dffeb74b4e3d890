// The OpenVINO backend: IR, ONNX, TensorFlow SavedModel, TensorFlow Lite and Paddle models on a CPU (or another device of
// OpenVINO). Built as a plug-in (libfastserve_openvino.so) that exports fastserve_backend(), so that a process without such
// a model never loads OpenVINO.
//
// Limits of OpenVINO's CPU plug-in that show through: it computes 64-bit integers in 32 bits and FP64 in FP32 (larger values
// do not come through), and takes bf16 by itself where the CPU has it (LoadedModel::properties() says which precision runs).
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
