// Whether one row that comes alone gets a compiled model of its own beside the one for any number of rows.
//
// With a fixed shape OpenVINO looks at no shapes during a run and places all memory beforehand. ResNet-50 (bf16, two cores, 21 ms):
// 0.25-0.45 ms less for a lone image, in turns. It holds the weights once more in the precision of the computation: 55 MB there
// with bf16, 103 MB with f32. Hence only where it shows (`lone_pays` in tuning.h), measured run by run in turns, and for
// weights of at most kMostLoneWeightsBytes. Every other number of rows goes on with the shared one: a batch has company to
// share those 0.3 ms with.
// Thread: loader; blocks. Measures only in a QuietTime.
#pragma once

#include <functional>
#include <openvino/openvino.hpp>
#include <optional>
#include <string>

#include "backend/tune_cache.h"
#include "base/clock.h"

namespace fastserve {

inline constexpr std::size_t kMostLoneWeightsBytes = 256 << 20;  // in the file
// A run for which some tenths of a millisecond do not matter, and which would take long to measure.
inline constexpr Nanos kLongestLoneRun = 50 * kMillisecond;

struct LoneTask {
  std::string model;                                       // for the log
  ov::CompiledModel shared;                                // for any number of rows
  std::function<ov::CompiledModel(std::int64_t)> compile;  // for so many; may throw
};

struct LoneFound {
  Lone lone = Lone::kUnknown;  // unknown: could not be measured
  std::string measured;        // the figures, or why there are none
  std::optional<ov::CompiledModel> compiled;
};

LoneFound measure_lone_row(const LoneTask& task);

}  // namespace fastserve
