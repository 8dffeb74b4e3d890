// model_warmup: requests that the model's author gives, run on every instance before READY, after the sizes' own warm-up
// (model/warm_up.h). So data that the model needs to be quick or to work at all have been seen.
//
// A sample has `rows` times the same row for each input: zeros (BYTES: empty elements), random (floats from [0, 1), integers and
// BOOL 0 or 1, so that they are valid indices, BYTES eight letters; the same at every load), or given bytes.
// Thread: loader; the instances have no thread yet.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "batch/scheduling.h"
#include "sched/instance.h"
#include "tensor/signature.h"

namespace fastserve {

// INVALID_ARGUMENT names sample, input and field, when a sample does not fit the signature or the model fails with it:
// `warm_up["first"]: inputs["x"].shape[0]: got -1, want 0 or more`.
Status run_warm_up_samples(const Signature& signature, std::string_view model,
                           std::span<const WarmUpSample> samples,
                           std::span<const std::unique_ptr<Instance>> instances, const Progress& progress);

}  // namespace fastserve
