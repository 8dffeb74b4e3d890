// TF Serving's allowed_batch_sizes, checked against the model's batch size.
// Thread: any. Pure.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "base/status.h"

namespace fastserve {

// spec.allowed_rows: empty, or positive, ascending, each once, the last one `max_rows`; and then the model has to batch
// (max_rows > 0). INVALID_ARGUMENT says which entry, got and want.
Status check_allowed_rows(const LoadSpec& spec, std::int64_t max_rows);

// What to ask the model for: spec.max_batch_rows, or the largest allowed size when only those are given.
std::int64_t wanted_batch_rows(const LoadSpec& spec);

}  // namespace fastserve
