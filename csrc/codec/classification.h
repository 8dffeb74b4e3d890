// Triton's classification extension (contracts.md section 2.4): an output is answered as its k largest elements, each a text
// "value:index[:label]". Between the engine and the encoders, the same for gRPC and REST. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/status.h"
#include "batch/request.h"
#include "batch/served_version.h"
#include "memory/byte_buffer.h"

namespace fastserve {

// The `count` largest of one row of `dtype` elements as length-prefixed BYTES elements, appended to `out`; returns how many
// (all when the row has fewer). Descending; equal values in the order of their index; NaN counts as less than everything.
// Floating-point values are written as C's "%f" does (6 decimals, "inf", "nan"), others as integers, BOOL as 0 and 1. The
// label is left out where `labels` has none for the index (or an empty one). `dtype` is not BYTES.
std::int64_t append_top_classes(DType dtype, std::span<const std::byte> row, std::int64_t count,
                                std::span<const std::string> labels, ByteBuffer& out);

// Turns every output of request.response for which a classification was asked into BYTES of shape [rows, k], or [k] of a
// model that does not batch; k is cut to the number of elements of a row. The texts go to request.scratch. Others are left.
// response.status is OK and response.outputs stand in the order of requested_outputs (when there are any).
// INVALID_ARGUMENT for a BYTES output.
Status classify_outputs(const ServedVersion& version, Request& request);

}  // namespace fastserve
