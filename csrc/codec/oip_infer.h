// The hot RPCs of the Open Inference Protocol, ModelInfer and ModelStreamInfer, between wire bytes and the neutral types. Contract:
// protos/oip_grpc_service.proto and contracts.md section 2.3. Pure: no state, no clock; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/status.h"
#include "batch/request.h"
#include "batch/served_version.h"
#include "codec/out_message.h"

namespace fastserve {

inline constexpr std::size_t kMaxInputs = 64;
inline constexpr std::size_t kMaxRequestedOutputs = 256;
inline constexpr std::size_t kMaxParameters = 64;  // of one request; others are looked at and not kept

// Decodes a ModelInferRequest (without the gRPC prefix) into `out`, which must be fresh or reset():
//   model_name, model_version, id             views into `message`
//   inputs                                    in wire order; data = views into `message` (raw_input_contents) or into
//                                             out.scratch (typed contents, little-endian, BYTES length-prefixed)
//   requested_outputs                         names and `classification`
//   priority, queue_timeout_ns                from the parameters `priority` and `timeout` (microseconds)
//   shared_inputs, requested_outputs[].shared what stands in shared memory, by name; raw_input_contents has no entry for it
//   parameters                                all others, the last of each name, in wire order
// `message` outlives the request's use of the views (the front end decodes out.message.span()).
// Does not look at the model: names, shapes and byte counts are compared with the signature by validate().
// Never reads outside `message`, whatever it holds. Allocates only when a vector of `out` grows or contents are typed.
// Errors: INVALID_ARGUMENT with a field path:
// `inputs[2].shape: got rank 17, want 16 or fewer`. `out` is then half filled: reset it.
Status decode_model_infer(std::span<const std::byte> message, Request& out);

// Appends a ModelInferResponse with its gRPC prefix to `out` (cleared before): the version's name and number, the request's
// id, and per output of `response` (status OK) name, datatype, shape and one raw_output_contents entry, in order; of an output in
// shared memory the entry is empty, and region, size and offset are sent back as parameters.
// Tensors of kReferenceBytes and more are referenced, not copied: when out.needs_keep(), give it what keeps them
// (response.batch in a shared_ptr) before sending.
// Error: INVALID_ARGUMENT when the message would pass INT32_MAX bytes, the largest that protobuf can take. `out` is then empty.
Status encode_model_infer(const Response& response, const ServedVersion& version, const Request& request,
                          OutMessage& out);

// The same as a message of ModelStreamInfer: a ModelStreamInferResponse around it, with the parameter
// `triton_final_response`, which Triton puts into every response of a stream: `final` says whether more come for the request.
Status encode_model_stream_infer(const Response& response, const ServedVersion& version,
                                 const Request& request, OutMessage& out);

// What went wrong with one request of a stream: error_message, and an infer_response that has only the request's id and the
// parameter. protobuf strings are UTF-8: a text that is not gets '?' for what is not ASCII.
void encode_stream_error(std::string_view id, std::string_view message, OutMessage& out);

}  // namespace fastserve
