#include "tensor/signature.h"

#include <algorithm>

namespace fastserve {
namespace {

std::string quoted(std::string_view name) {
  constexpr std::size_t kEchoBytes = 128;  // errors do not amplify what a client sent
  return std::string(name.substr(0, kEchoBytes));
}

std::string field(std::string_view input) { return "inputs[\"" + quoted(input) + "\"]"; }

int index_of(std::span<const TensorSpec> specs, std::string_view name) {
  for (std::size_t i = 0; i < specs.size(); ++i) {
    if (specs[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

// First dimension that does not fit, or -1. Sizes above 2^40 elements are refused by byte_count later.
int mismatch(const Shape& want, const Shape& got) {
  for (std::size_t i = 0; i < want.rank(); ++i) {
    if (want[i] == -1 ? got[i] < 0 : want[i] != got[i]) return static_cast<int>(i);
  }
  return -1;
}

Status check_shape(const TensorSpec& spec, std::string_view model, const TensorView& got) {
  const auto head = [&] {
    return "unexpected shape for input '" + spec.name + "' for model '" + std::string(model) +
           "'. Expected " + spec.shape.str() + ", got " + got.shape.str() + ". ";
  };
  if (got.shape.rank() != spec.shape.rank()) {
    return invalid_argument(head() + field(spec.name) + ".shape: got rank " +
                            std::to_string(got.shape.rank()) + ", want " + std::to_string(spec.shape.rank()));
  }
  if (const int i = mismatch(spec.shape, got.shape); i >= 0) {
    const auto at = static_cast<std::size_t>(i);
    const std::string want = spec.shape[at] == -1 ? "0 or more" : std::to_string(spec.shape[at]);
    return invalid_argument(head() + field(spec.name) + ".shape[" + std::to_string(i) + "]: got " +
                            std::to_string(got.shape[at]) + ", want " + want);
  }
  return Status::ok();
}

Status check_size(const TensorSpec& spec, std::string_view model, const TensorView& got) {
  const auto mismatch_of = [&](const std::string& want) {
    return invalid_argument("input byte size mismatch for input '" + spec.name + "' for model '" +
                            std::string(model) + "'. Expected " + want + ", got " +
                            std::to_string(got.data.size()) + ". " + field(spec.name) + ".data: got " +
                            std::to_string(got.data.size()) + " bytes, want " + want);
  };
  if (spec.dtype == DType::kBytes) {
    const auto count = got.shape.elements();
    const auto end = count ? bytes_extent(got.data, *count) : std::nullopt;
    if (end && *end == got.data.size()) return Status::ok();
    return mismatch_of("exactly " + got.shape.str() + " length-prefixed elements");
  }
  const auto want = got.shape.byte_count(spec.dtype);
  if (!want) {
    return invalid_argument(field(spec.name) + ".shape: got " + got.shape.str() +
                            ", want fewer than 2^40 elements");
  }
  return *want == got.data.size() ? Status::ok() : mismatch_of(std::to_string(*want));
}

Status check_input(const TensorSpec& spec, std::string_view model, const TensorView& got) {
  if (got.dtype != spec.dtype) {
    return invalid_argument("inference input '" + spec.name + "' data-type is '" +
                            std::string(dtype_name(got.dtype)) + "', but model '" + std::string(model) +
                            "' expects '" + std::string(dtype_name(spec.dtype)) + "'. " + field(spec.name) +
                            ".datatype: got " + std::string(dtype_name(got.dtype)) + ", want " +
                            std::string(dtype_name(spec.dtype)));
  }
  FS_RETURN_IF_ERROR(check_shape(spec, model, got));
  return check_size(spec, model, got);
}

Status match_names(const Signature& signature, std::string_view model, std::span<const TensorView> inputs,
                   std::span<int> order) {
  std::ranges::fill(order, -1);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const int at = signature.input_index(inputs[i].name);
    if (at < 0) {
      return invalid_argument("unexpected inference input '" + quoted(inputs[i].name) + "' for model '" +
                              std::string(model) + "'. " + field(inputs[i].name) +
                              ": the model has no such input");
    }
    if (order[static_cast<std::size_t>(at)] >= 0) {
      return invalid_argument("input '" + quoted(inputs[i].name) + "' already exists in request. " +
                              field(inputs[i].name) + ": given twice");
    }
    order[static_cast<std::size_t>(at)] = static_cast<int>(i);
  }
  for (std::size_t i = 0; i < signature.inputs.size(); ++i) {
    if (order[i] >= 0 || signature.inputs[i].optional) continue;
    return invalid_argument("expected " + std::to_string(signature.inputs.size()) + " inputs but got " +
                            std::to_string(inputs.size()) + " inputs for model '" + std::string(model) +
                            "'. " + field(signature.inputs[i].name) + ": missing");
  }
  return Status::ok();
}

Result<std::int64_t> common_rows(const Signature& signature, std::string_view model,
                                 std::span<const TensorView> inputs) {
  if (!signature.batches()) return std::int64_t{1};
  if (inputs.empty())
    return invalid_argument("inputs: got 0, want at least 1 for model '" + std::string(model) + "'");
  const std::int64_t rows = inputs.front().shape[0];
  for (const TensorView& input : inputs) {
    if (input.shape[0] == rows) continue;
    return invalid_argument("input '" + quoted(input.name) +
                            "' batch size does not match other inputs for '" + std::string(model) + "'. " +
                            field(input.name) + ".shape[0]: got " + std::to_string(input.shape[0]) +
                            ", want " + std::to_string(rows));
  }
  if (rows < 1) {
    return invalid_argument(field(inputs.front().name) + ".shape[0]: got " + std::to_string(rows) +
                            ", want 1 or more rows for model '" + std::string(model) + "'");
  }
  const std::int64_t most = std::max(signature.max_batch_rows, signature.max_request_rows);
  if (rows > most) {
    return invalid_argument("inference request batch-size must be <= " + std::to_string(most) + " for '" +
                            std::string(model) + "'. " + field(inputs.front().name) + ".shape[0]: got " +
                            std::to_string(rows) + ", want " + std::to_string(most) + " or fewer");
  }
  return rows;
}

}  // namespace

int Signature::input_index(std::string_view name) const { return index_of(inputs, name); }
int Signature::output_index(std::string_view name) const { return index_of(outputs, name); }

Result<std::int64_t> validate(const Signature& signature, std::string_view model,
                              std::span<const TensorView> inputs, std::span<int> order) {
  FS_RETURN_IF_ERROR(match_names(signature, model, inputs, order));
  for (std::size_t i = 0; i < signature.inputs.size(); ++i) {
    if (order[i] < 0) continue;
    FS_RETURN_IF_ERROR(check_input(signature.inputs[i], model, inputs[static_cast<std::size_t>(order[i])]));
  }
  return common_rows(signature, model, inputs);
}

}  // namespace fastserve
