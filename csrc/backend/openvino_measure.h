// Times compiled models on zeros, outside of any instance.
// Thread: any; blocks. Others that use the machine meanwhile show in the figures.
#pragma once

#include <cstdint>
#include <functional>
#include <openvino/openvino.hpp>
#include <optional>

#include "base/clock.h"

namespace fastserve {

// Best of some runs with one row, at most about 0.3 s of them. nullopt when the model does not take zeros (lengths of 1, indices
// of 0). Free dimensions count as 1. `here`: on this thread, for models whose every shape is known (openvino_compile.h says why);
// else asynchronously, which adds the hop to the figure.
std::optional<Nanos> measure_lone(ov::CompiledModel& compiled, bool here);

// Two compiled models run by run in turns with one row (A B B A), so that what else happens on the machine meets both.
struct TurnsMeasured {
  Nanos first_ns = 0;  // a run of the first one: median
  Nanos saved_ns = 0;  // how much less the second one takes: median of the differences of each four runs
};
// At most about `most_ns` of runs, at least two fours. nullopt: a run fails, or `disturbed` said so.
std::optional<TurnsMeasured> measure_in_turns(ov::CompiledModel& first, ov::CompiledModel& second,
                                              Nanos most_ns, const std::function<bool()>& disturbed);

struct RateTask {
  int streams = 1;
  std::int64_t rows = 0;            // 0: the model does not batch
  Nanos window = 0;                 // about; every stream finishes at least two runs
  std::function<bool()> disturbed;  // asked between runs; true: give up
};
// Rows (runs, when it does not batch) per second with two requests under way for each stream. nullopt: it fails, or was disturbed.
std::optional<double> measure_rate(ov::CompiledModel& compiled, const RateTask& task);

}  // namespace fastserve
