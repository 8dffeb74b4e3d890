// What a version accepts and returns, and the check of a request against it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace fastserve {

struct TensorSpec {
  std::string name;
  DType dtype = DType::kFp32;
  Shape shape;            // with the batch dimension (-1) in front when the signature's max_batch_rows > 0
  bool optional = false;  // inputs only
};

struct Signature {
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  std::int64_t max_batch_rows = 0;  // 0: the model has no batch dimension, one request is one execution
  // A request may have up to so many rows, and is run in parts when it has more than max_batch_rows. 0: max_batch_rows.
  std::int64_t max_request_rows = 0;

  bool batches() const { return max_batch_rows > 0; }
  // Index into inputs / outputs, or -1.
  int input_index(std::string_view name) const;
  int output_index(std::string_view name) const;
};

// Checks inputs against the signature and says how many rows the request has (1 when the model does not batch).
// On success `order[i]` is the position in `inputs` of the signature's input i, -1 for an absent optional one;
// `order` has room for signature.inputs.size() entries. Errors are INVALID_ARGUMENT in Triton's words
// (contracts: "unexpected shape for input 'x' for model 'm'. Expected [-1,3], got [1,4]", "expected N inputs but got
// M inputs for model 'm'", "inference request batch-size must be <= N for 'm'", "inference input 'x' data-type is 'A',
// but model 'm' expects 'B'", "input byte size mismatch for input 'x' for model 'm'. Expected N, got M") followed by the
// field path: `inputs["x"].shape[1]: got 4, want 3`.
Result<std::int64_t> validate(const Signature& signature, std::string_view model,
                              std::span<const TensorView> inputs, std::span<int> order);

}  // namespace fastserve
