// Runs a version before anybody else does: every instance for every prepared batch size (1 row and the most rows when the
// backend prepared none), with zeros. The times seed each instance's own cost model; with `may_drop`, large sizes that serve no more rows per
// second than smaller ones are taken off `buckets`, so that the device need not hold memory for them. Lazy compilation, first allocations and a model that cannot run at all show here,
// while whatever served before still serves.
//
// Dimensions that the signature leaves open are taken as 1. That is a guess, so with such inputs a failed run is only logged.
// Thread: loader; the instances have no thread yet.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "sched/instance.h"

namespace fastserve {

Status warm_up(const Signature& signature, bool may_drop, std::vector<std::int64_t>& buckets,
               std::span<const std::unique_ptr<Instance>> instances, const Progress& progress);

}  // namespace fastserve
