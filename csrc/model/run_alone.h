// One request through one instance that has no thread yet, and nothing else: what the warm-up does.
// Thread: loader; blocks until the backend is done.
#pragma once

#include "base/clock.h"
#include "base/status.h"
#include "batch/request.h"
#include "sched/instance.h"

namespace fastserve {

// `request`: with rows, inputs, input_order and output_order. Its response is checked and released. `took`: from start to finish.
Status run_alone(Instance& instance, Request& request, Nanos& took);

}  // namespace fastserve
