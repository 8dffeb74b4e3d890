// Finds the number of streams of a model that is about to be served (backend/tuning.h has the rule), by compiling and timing it
// with one number after the other; or takes it from the cache.
//
// Only while the process is idle: what would be measured beside serving models is wrong, and they would feel it. When others are
// at work, when requests come meanwhile, and when other processes have the CPUs (our threads waited for more than a fifth of
// what they ran), the model gets one stream, says so in its properties and the log, and is measured at its next load. Nothing of
// it is kept then.
// Thread: loader. One measurement at a time in the process.
#pragma once

#include <cstdint>
#include <functional>
#include <openvino/openvino.hpp>
#include <optional>
#include <string>

#include "backend/backend.h"
#include "backend/tune_cache.h"
#include "base/clock.h"

namespace fastserve {

struct TuneTask {
  std::string model;                                      // for the log
  std::string key;                                        // of the cache; `tune_key`
  std::function<ov::CompiledModel(int streams)> compile;  // may throw
  std::int64_t max_rows = 0;                              // 0: does not batch
  int threads = 1;
  int nodes = 1;
  double fraction = 0;  // of the load, for `progress`
  const Progress* progress = nullptr;
};

struct Tuned {
  TunedShape shape;
  std::string why;                            // "measured", "from the cache", "default: ..."
  std::optional<ov::CompiledModel> compiled;  // with that number of streams, when it is there already
  bool measured = false;                      // just now, so that it is worth keeping
  bool settled = false;                       // the next load will find the same
};

Tuned tune_streams(const TuneTask& task);

// Everything that the figures depend on, for the cache: model, CPU, threads, OpenVINO and `options`.
std::string tune_key(const ov::Model& model, const std::string& options, int threads);

}  // namespace fastserve
