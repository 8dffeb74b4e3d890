#include "model/warm_up_sample.h"

#include <cstdint>
#include <cstring>
#include <random>
#include <string>

#include "base/checked.h"
#include "batch/request.h"
#include "model/run_alone.h"

namespace fastserve {
namespace {

constexpr std::int64_t kMostRuns =
    100'000;  // of one sample, so that a slip of the pen does not keep a load busy for ever

// What a request of a sample points into.
struct SampleRequest {
  Request request;
  std::vector<std::vector<std::byte>> data;
};

template <class T>
void append(std::vector<std::byte>& out, T value) {
  const std::size_t at = out.size();
  out.resize(at + sizeof(value));
  std::memcpy(out.data() + at, &value, sizeof(value));
}

void append_word(std::vector<std::byte>& out, std::mt19937& random) {
  constexpr std::uint32_t kLetters = 8;
  append(out, kLetters);
  for (std::uint32_t i = 0; i < kLetters; ++i) append(out, static_cast<char>('a' + random() % 26U));
}

void append_random(std::vector<std::byte>& out, DType dtype, std::mt19937& random) {
  const float fraction = static_cast<float>(random() >> 8U) / static_cast<float>(1U << 24U);
  const auto one_bit = static_cast<std::uint8_t>(random() & 1U);
  switch (dtype) {
    case DType::kBytes:
      return append_word(out, random);
    case DType::kFp64:
      return append(out, static_cast<double>(fraction));
    case DType::kFp32:
      return append(out, fraction);
    case DType::kBf16: {
      std::uint32_t bits = 0;
      std::memcpy(&bits, &fraction, sizeof(bits));
      return append(out, static_cast<std::uint16_t>(bits >> 16U));
    }
    case DType::kFp16:  // sign 0, exponent 14 (from 0.5 up), any fraction
      return append(out, static_cast<std::uint16_t>((14U << 10U) | (random() & 0x3ffU)));
    default:
      append(out, one_bit);
      return out.resize(out.size() + dtype_size(dtype) - 1);  // little-endian
  }
}

std::string field(const WarmUpInput& input) { return "inputs[\"" + input.name + "\"]"; }

// One row's elements; the shape has no open dimension and the product is sane.
Result<std::size_t> elements_of_row(const WarmUpInput& input) {
  for (std::size_t i = 0; i < input.shape.rank(); ++i) {
    if (input.shape[i] >= 0) continue;
    return invalid_argument(field(input) + ".shape[" + std::to_string(i) + "]: got " +
                            std::to_string(input.shape[i]) +
                            ", want 0 or more: a sample has no open dimension");
  }
  if (const auto elements = input.shape.elements()) return static_cast<std::size_t>(*elements);
  return invalid_argument(field(input) + ".shape: got " + input.shape.str() +
                          ", want fewer than 2^40 elements");
}

Status check_data(const WarmUpInput& input, std::size_t elements) {
  const std::string got = field(input) + ".data: got " + std::to_string(input.data.size()) + " bytes, want ";
  if (input.dtype == DType::kBytes) {
    const auto extent = bytes_extent(input.data, static_cast<std::int64_t>(elements));
    if (extent && *extent == input.data.size()) return Status::ok();
    return invalid_argument(got + std::to_string(elements) +
                            " elements, each with its length in 4 bytes in front");
  }
  const std::size_t want = elements * dtype_size(input.dtype);
  if (want == input.data.size()) return Status::ok();
  return invalid_argument(got + std::to_string(want) + " (" + std::string(dtype_name(input.dtype)) + " " +
                          input.shape.str() + ", one row)");
}

Result<std::vector<std::byte>> row_of(const WarmUpInput& input, std::mt19937& random) {
  FS_ASSIGN_OR_RETURN(const std::size_t elements, elements_of_row(input));
  if (input.fill == WarmUpInput::Fill::kData) {
    FS_RETURN_IF_ERROR(check_data(input, elements));
    return input.data;
  }
  std::vector<std::byte> row;
  if (input.fill == WarmUpInput::Fill::kZero) {
    row.resize(elements * (input.dtype == DType::kBytes ? sizeof(std::uint32_t) : dtype_size(input.dtype)));
  } else {
    for (std::size_t i = 0; i < elements; ++i) append_random(row, input.dtype, random);
  }
  return row;
}

Status add_input(const WarmUpInput& input, const Signature& signature, std::int64_t rows,
                 std::mt19937& random, SampleRequest& out) {
  FS_ASSIGN_OR_RETURN(const std::vector<std::byte> row, row_of(input, random));
  std::size_t bytes = 0;
  if (!checked_mul(row.size(), static_cast<std::size_t>(rows), bytes)) {
    return invalid_argument("rows: got " + std::to_string(rows) + ", too many");
  }
  std::vector<std::byte>& data = out.data.emplace_back();
  data.reserve(bytes);
  for (std::int64_t i = 0; i < rows; ++i) data.insert(data.end(), row.begin(), row.end());
  Shape shape;
  if (signature.batches()) shape.push_back(rows);
  for (const std::int64_t dim : input.shape.dims()) shape.push_back(dim);
  if (shape.rank() != input.shape.rank() + (signature.batches() ? 1 : 0)) {
    return invalid_argument(field(input) + ".shape: got rank " + std::to_string(input.shape.rank()) +
                            ", want " + std::to_string(kMaxRank - 1) + " or fewer");
  }
  out.request.inputs.push_back({input.name, input.dtype, shape, data});
  return Status::ok();
}

Status check_counts(const WarmUpSample& sample, const Signature& signature) {
  if (sample.count < 1 || sample.count > kMostRuns) {
    return invalid_argument("count: got " + std::to_string(sample.count) + ", want 1 to " +
                            std::to_string(kMostRuns));
  }
  if (!signature.batches() && sample.rows > 1) {
    return invalid_argument("rows: got " + std::to_string(sample.rows) +
                            ", want 0 or 1, because the model does not batch");
  }
  if (signature.batches() && (sample.rows < 1 || sample.rows > signature.max_batch_rows)) {
    return invalid_argument("rows: got " + std::to_string(sample.rows) + ", want 1 to " +
                            std::to_string(signature.max_batch_rows));
  }
  return Status::ok();
}

Status make_request(const WarmUpSample& sample, const Signature& signature, std::string_view model,
                    SampleRequest& out) {
  FS_RETURN_IF_ERROR(check_counts(sample, signature));
  const std::int64_t rows = signature.batches() ? sample.rows : 1;
  std::mt19937 random;  // NOLINT: the same at every load is meant
  for (const WarmUpInput& input : sample.inputs) {
    FS_RETURN_IF_ERROR(add_input(input, signature, rows, random, out));
  }
  out.request.input_order.resize(signature.inputs.size());
  FS_ASSIGN_OR_RETURN(out.request.rows,
                      validate(signature, model, out.request.inputs, out.request.input_order));
  for (std::size_t i = 0; i < signature.outputs.size(); ++i) {
    out.request.output_order.push_back(static_cast<int>(i));
  }
  return Status::ok();
}

Status run(const WarmUpSample& sample, SampleRequest& made,
           std::span<const std::unique_ptr<Instance>> instances) {
  for (const auto& instance : instances) {
    for (std::int64_t i = 0; i < sample.count; ++i) {
      Nanos took = 0;
      FS_RETURN_IF_ERROR(run_alone(*instance, made.request, took));
    }
  }
  return Status::ok();
}

// What is wrong with a sample is its author's fault, whatever the backend calls it.
Status named(const WarmUpSample& sample, const Status& status) {
  const Code code = status.code() == Code::kResourceExhausted ? status.code() : Code::kInvalidArgument;
  return {code, "warm_up[\"" + sample.name + "\"]: " + status.message()};
}

std::string names_of_inputs(const WarmUpSample& sample) {
  std::string out;
  for (const WarmUpInput& input : sample.inputs) out += (out.empty() ? "" : ", ") + field(input);
  return out;
}

}  // namespace

Status run_warm_up_samples(const Signature& signature, std::string_view model,
                           std::span<const WarmUpSample> samples,
                           std::span<const std::unique_ptr<Instance>> instances, const Progress& progress) {
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const WarmUpSample& sample = samples[i];
    progress(static_cast<double>(i) / static_cast<double>(samples.size()),
             "warming with \"" + sample.name + "\"");
    SampleRequest made;
    if (const Status status = make_request(sample, signature, model, made); !status.is_ok()) {
      return named(sample, status);
    }
    if (const Status status = run(sample, made, instances); !status.is_ok()) {
      return named(sample, {status.code(),
                            "the model failed with " + names_of_inputs(sample) + ": " + status.message()});
    }
  }
  return Status::ok();
}

}  // namespace fastserve
