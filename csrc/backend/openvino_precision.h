// In which precision a compiled model really computes. OpenVINO picks bf16 by itself where the CPU has it, which surprises people.
// Thread: any.
#pragma once

#include <openvino/openvino.hpp>
#include <string>

namespace fastserve {

struct ExecutionPrecision {
  // "f32", "bf16", "i8", ...: of most of the operations that do the work, else OpenVINO's inference precision, which is only what
  // it may use (an MLP that is reported as bf16 may run in f32); "" when the device says neither.
  std::string name;
  std::string nodes;  // of those operations, counted: "bf16 53, f32 1"; "" when the device does not say
};

// The first compiled model stands for all. Milliseconds: reads the executed graph.
ExecutionPrecision execution_precision(const ov::CompiledModel& model);

// The log line about it: "model 'x' computes in bf16 (OpenVINO's choice on this CPU; ...)". `pinned`: by the configuration.
std::string precision_in_words(const std::string& model, const ExecutionPrecision& precision, bool pinned);

}  // namespace fastserve
