// The "parameters" objects of a REST infer request: of the request, an input, an output.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/status.h"
#include "batch/request.h"
#include "codec/json_reader.h"
#include "codec/shared_place.h"
#include "memory/scratch.h"

namespace fastserve {

// Reads the request's "parameters" at the cursor: `priority` and `timeout` (microseconds) go to their fields, all others to
// out.parameters; strings are decoded into out.scratch. Values are booleans, numbers and strings. Names that start with
// "triton_" are reserved. binary_data_output must be a boolean.
Status read_request_parameters(JsonReader& reader, Request& out);

// The path of the owner of parameters, for messages: built only when there is one. Borrows the callable.
class OwnerPath {
 public:
  template <class F>
  OwnerPath(const F& path)  // NOLINT(google-explicit-constructor): made for lambdas in a call
      : object_(&path),
        call_([](const void* object) { return std::string((*static_cast<const F*>(object))()); }) {}
  std::string operator()() const { return call_(object_); }

 private:
  const void* object_;
  std::string (*call_)(const void*);
};

struct RestInputParameters {
  std::optional<std::int64_t> binary_data_size;  // >= 0
  SharedPlaceDraft shared;
};
// Unknown parameters are skipped. A region's name is decoded into `scratch`.
Status read_input_parameters(JsonReader& reader, OwnerPath owner, Scratch& scratch, RestInputParameters& out);

struct RestOutputParameters {
  std::optional<bool> binary_data;
  std::int64_t classification = 0;
  SharedPlaceDraft shared;
};
Status read_output_parameters(JsonReader& reader, OwnerPath owner, Scratch& scratch,
                              RestOutputParameters& out);

// The request's binary_data_output.
bool wants_binary_output(const Request& request);

}  // namespace fastserve
