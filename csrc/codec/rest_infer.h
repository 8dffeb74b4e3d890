// Inference over REST: the Open Inference Protocol's JSON with Triton's binary tensor data extension (contracts 2.4).
// Pure functions; nothing here does I/O, knows the engine or throws (but for lack of memory).
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string_view>

#include "base/status.h"
#include "batch/request.h"
#include "batch/served_version.h"
#include "codec/out_message.h"
#include "tensor/signature.h"

namespace fastserve {

// Limits on the JSON of a request (S6); one more is INVALID_ARGUMENT.
inline constexpr int kRestJsonDepth = 32;
inline constexpr int kRestJsonKeys = 1000;           // in the whole document
inline constexpr std::size_t kRestNumberChars = 64;  // length of one number
inline constexpr std::size_t kRestInputs = 64;       // inputs, and outputs
inline constexpr std::size_t kRestParameters = 64;   // of the request

enum class RestForm : std::uint8_t {
  kJson,  // inputs are complete
  kRaw,  // Inference-Header-Content-Length: 0: the whole body is the one input; go on with complete_raw_request
};

// Decodes the body of an infer request into `out`: id, inputs, requested_outputs, parameters, priority, queue_timeout_ns.
// model_name and model_version come from the route and are not touched. Views point into `body` (usually out.message) and
// out.scratch; both must stay until the final response was delivered.
//
// header_length: the value of the header Inference-Header-Content-Length, nullopt when the request has none.
// JSON data is checked and stored little-endian by the declared datatype: numbers in the datatype's range (for integers
// written without fraction or exponent), BOOL from true, false, 0 and 1, BYTES from strings; FP16 and BF16 only in binary.
// Flat data or data nested exactly as the shape says. NaN, a BOM, duplicate keys and trailing bytes are errors; unknown
// keys are skipped.
// Errors: INVALID_ARGUMENT, syntax errors with byte, line and column, others with the field and the value:
// `inputs["x"].data[5]: got 300, want 0..255 for UINT8`. What stands in shared memory is named in out.shared_inputs and
// requested_outputs[].shared.
// The request parameter binary_data_output stays in out.parameters for encode_rest_infer.
Status decode_rest_infer(std::span<const std::byte> body, std::optional<std::string_view> header_length,
                         Request& out, RestForm& form);

// The input of a raw request: the signature must have one input with at most one dynamic dimension besides the batch
// dimension; the request is one row (BYTES: one element, `body` without length prefix). All outputs are binary. Views
// point into `body` and out.scratch.
// INVALID_ARGUMENT when the model or the size does not fit.
Status complete_raw_request(const Signature& signature, std::string_view model,
                            std::span<const std::byte> body, Request& out);

// What the HTTP response says about the body.
struct RestHead {
  std::string_view content_type;  // "application/json" or "application/octet-stream"
  std::optional<std::size_t>
      json_length;  // Inference-Header-Content-Length; only with a binary output that is not empty
};

// Encodes response.outputs into `out` (cleared before): JSON with flat data, then the binary outputs in order (those of
// kReferenceBytes and more by reference: when out.needs_keep(), give it what keeps them, response.batch in a shared_ptr).
// Names come from version.signature; which outputs are binary from request.requested_outputs (same order as
// response.outputs) and the parameter binary_data_output; an explicit binary_data on an output wins. Outputs in shared memory
// have no data; region, size and offset are sent back.
// response.status must be OK. NaN and infinities in JSON: see JsonWriter::number.
// Errors leave `out` empty: INVALID_ARGUMENT for FP16 and BF16 as JSON and for BYTES that are not UTF-8 as JSON (both say
// to ask for binary data), INTERNAL when a BYTES output is malformed. Classification is done before: classification.h.
Status encode_rest_infer(const Response& response, const ServedVersion& version, const Request& request,
                         OutMessage& out, RestHead& head);

}  // namespace fastserve
