// The "parameters" objects of a REST infer request: of the request, an input, an output.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "batch/request.h"
#include "codec/json_reader.h"

namespace fastserve {

// Reads the request's "parameters" at the cursor: `priority` and `timeout` (microseconds) go to their fields, all others to
// out.parameters; strings are decoded into out.scratch. Values are booleans, numbers and strings. Names that start with
// "triton_" are reserved. binary_data_output must be a boolean.
Status read_request_parameters(JsonReader& reader, Request& out);

struct RestInputParameters {
  std::optional<std::int64_t> binary_data_size;  // >= 0
};
// `field`: the path of the input or output, for messages. Unknown parameters are skipped, shared memory is UNIMPLEMENTED.
Status read_input_parameters(JsonReader& reader, const std::string& field, RestInputParameters& out);

struct RestOutputParameters {
  std::optional<bool> binary_data;
  std::int64_t classification = 0;
};
Status read_output_parameters(JsonReader& reader, const std::string& field, RestOutputParameters& out);

}  // namespace fastserve
