// Finds the memory that a request names by region (Triton's system and CUDA shared-memory extensions): the inputs that stand there and the
// places of its outputs. Contract: contracts.md section 2.5. Thread: any.
#pragma once

#include "base/status.h"
#include "batch/request.h"
#include "memory/region_table.h"

namespace fastserve {

// Before validate. Numbers are read where they are, without a copy; BYTES inputs are copied to request.scratch, because the
// client could change their lengths after they were checked. The regions stay in request.regions until its reset().
// Errors, in Triton's words and with the field: UNIMPLEMENTED when `table` is off, NOT_FOUND for a region that is not
// registered, INVALID_ARGUMENT for a place outside of it or one that its owner truncated, RESOURCE_EXHAUSTED for more BYTES than
// may be copied.
Status find_shared_places(const RegionTable& table, Request& request);

}  // namespace fastserve
