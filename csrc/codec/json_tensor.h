// The "data" array of a JSON tensor as little-endian, row-major bytes of the declared datatype.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "codec/json_reader.h"
#include "memory/scratch.h"
#include "tensor/tensor.h"

namespace fastserve {

// Reads the array at the reader's cursor into `scratch` and points input.data there. input.name, dtype and shape are given;
// the array is flat with as many elements as the shape has, or nested exactly as the shape says.
// Elements: integers written without fraction and exponent, within the datatype's range; FP32 and FP64 any number that is
// finite in that type; BOOL true, false, 0 or 1 (numpy-made JSON has the latter); BYTES strings, as UTF-8. FP16 and BF16 have
// no JSON form (Triton's rule). Allocates at most 4 bytes per byte of JSON text.
// Errors: INVALID_ARGUMENT, `inputs["x"].data[5]: got 300, want 0..255 for UINT8`; syntax errors as the reader words them.
Status read_json_tensor(JsonReader& reader, Scratch& scratch, TensorView& input);

// `inputs["x"]`, the name cut at 128 bytes: errors do not amplify what a client sent.
std::string input_field(std::string_view name);
// At most 128 bytes of `text`, cut between characters.
std::string_view excerpt(std::string_view text);

}  // namespace fastserve
