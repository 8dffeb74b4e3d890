// LoadSpec.parameters of the OpenVINO backend, checked.
//
//   DEVICE           "CPU" (default) or another device of OpenVINO
//   prepared         "static": one compiled model per batch size; "dynamic": one for all; "lone": one for all and one for a row that
//                    comes alone; "auto" (default): by the model's size and a measurement, see openvino_compile.h, openvino_lone.h
//   depth            "1" to "8" batches under way at once, or "auto" (default); 1 also means: on the instance's own thread,
//                    unless shapes are free (see openvino_compile.h)
//   tune             "load": measure how many streams serve it best (openvino_tune.h); "off": one; "auto" (default): as --tune says.
//                    instance_group, NUM_STREAMS, INFERENCE_NUM_THREADS and PERFORMANCE_HINT pin it as well. "off" also: no
//                    measurement for prepared "auto", so no model of its own for one row
//   any other name in capitals is a property of OpenVINO (NUM_STREAMS, INFERENCE_NUM_THREADS, INFERENCE_PRECISION_HINT,
//   PERFORMANCE_HINT, CACHE_DIR, ...) and handed over as it is.
//
// Thread: any.
#pragma once

#include <map>
#include <openvino/openvino.hpp>
#include <optional>
#include <string>

#include "base/status.h"

namespace fastserve {

enum class Prepared { kAuto, kStatic, kDynamic, kLone };

struct OpenVinoConfig {
  std::string device = "CPU";
  Prepared prepared = Prepared::kAuto;
  int depth = 0;             // 0: decided by measurement
  std::optional<bool> tune;  // nullopt: as the process is set
  ov::AnyMap properties;     // as the user gave them, all of them strings

  bool has(const std::string& key) const { return properties.contains(key); }
  std::string text(const std::string& key) const { return properties.at(key).as<std::string>(); }
};

inline constexpr int kMaxDepth = 8;

// INVALID_ARGUMENT names parameters["..."].
Result<OpenVinoConfig> read_openvino_config(ov::Core& core,
                                            const std::map<std::string, std::string>& parameters);

// Finds the property whose value the device refuses, by compiling a model of one operation with each of them; so a
// failed compilation can be told from a wrong parameter. OK when none is refused. Slow: only after a failure.
Status blame_property(ov::Core& core, const OpenVinoConfig& config);

}  // namespace fastserve
