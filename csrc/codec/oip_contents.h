// InferTensorContents: tensor data as typed repeated fields instead of raw bytes.
#pragma once

#include <span>
#include <string_view>

#include "base/status.h"
#include "codec/oip_wire.h"
#include "memory/scratch.h"
#include "tensor/dtype.h"

namespace fastserve {

// Writes the values of `contents` (an InferTensorContents, packed or not) to `scratch` as `dtype`: little-endian, narrow
// integers truncated, BYTES with length prefixes. The number of values is not compared with any shape.
// `path` stands on the contents field. Errors: FP16/BF16 (raw only), values in a field that the dtype does not use, malformed protobuf (throws
// protozero::exception).
Status read_contents(std::string_view contents, DType dtype, const FieldPath& path, Scratch& scratch,
                     std::span<const std::byte>& data);

}  // namespace fastserve
