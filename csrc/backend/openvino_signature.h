// An OpenVINO model's ports as a Signature, completed or narrowed by what the configuration says.
// Thread: any; the model is changed (reshaped) by resolve_signature.
#pragma once

#include <cstdint>
#include <openvino/openvino.hpp>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/status.h"
#include "tensor/signature.h"

namespace fastserve {

// Rows of a batch when neither the configuration nor the caller says: ResNet-50 and MLPs gain next to nothing beyond 32
// rows on a CPU, and 64 is what the prepared sizes reach in seven steps.
inline constexpr std::int64_t kDefaultMaxBatchRows = 64;

struct OpenVinoSignature {
  Signature signature;
  std::vector<std::size_t> input_ports;   // signature input -> index of the model's input
  std::vector<std::size_t> output_ports;  // signature output -> index of the model's output
  std::string batching;                   // why it batches or does not, for the log and metadata
};

// Decides whether the model batches, checks spec.inputs and spec.outputs against the model and reshapes `model` to the
// result (rows 1..max_batch_rows in front, dimensions that the configuration fixes fixed).
//   max_batch_rows -1  batches when every input and output has a free leading dimension and the outputs' follow the inputs'
//   max_batch_rows 0   does not batch
//   max_batch_rows > 0 must batch: a leading 1 is made free; INVALID_ARGUMENT config.max_batch_size when that fails
// INVALID_ARGUMENT: `config.input["x"].dims[0]: got 4, model has 3` and the like. UNIMPLEMENTED: names the port whose element
// type or rank is not supported.
Result<OpenVinoSignature> resolve_signature(ov::Model& model, const LoadSpec& spec);

// Sets every input to its shape in the signature with `rows` in front when it batches. Throws ov::Exception.
void reshape_rows(ov::Model& model, const OpenVinoSignature& resolved, const ov::Dimension& rows);

// UNIMPLEMENTED for strings and for types narrower than a byte. `field` opens the message.
Result<DType> dtype_from_openvino(const ov::element::Type& type, const std::string& field);
ov::element::Type dtype_to_openvino(DType dtype);  // dynamic for kBytes

}  // namespace fastserve
