// InferParameter maps of ModelInferRequest, its inputs and its requested outputs. Pure; any thread.
#pragma once

#include <string_view>

#include "base/status.h"
#include "batch/request.h"
#include "codec/oip_wire.h"
#include "codec/shared_place.h"

namespace fastserve {

// One map entry {key, value}. `path` stands on the map field. Errors: INVALID_ARGUMENT (malformed, no value).
Status read_parameter(std::string_view entry, const FieldPath& path, Parameter& out);

// Puts a request parameter where it belongs: priority, queue_timeout_ns, or out.parameters (replacing one of that name).
// Errors: INVALID_ARGUMENT for a wrong kind or range, a reserved name, more than kMaxParameters.
Status set_request_parameter(const Parameter& parameter, Request& out);

// Parameters of an input or output that place it in shared memory go to `out`; others are left alone. INVALID_ARGUMENT: a wrong
// kind or range, and names that begin with shared_memory_ and are none of the three.
Status read_shared_memory(const Parameter& parameter, const FieldPath& path, SharedPlaceDraft& out);

// `classification` of a requested output: k > 0.
Status read_classification(const Parameter& parameter, const FieldPath& path, std::int64_t& out);

}  // namespace fastserve
