// Requests and specs that the engine's tests share. Header only; each test links what its layer has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "batch/request.h"
#include "batch/served_version.h"
#include "tensor/signature.h"

namespace fastserve {

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

inline std::vector<std::byte> serialized(const std::vector<std::string>& elements) {
  std::vector<std::byte> out;
  for (const std::string& element : elements) {
    const auto length = static_cast<std::uint32_t>(element.size());
    const std::size_t at = out.size();
    out.resize(at + sizeof(length) + element.size());
    std::memcpy(out.data() + at, &length, sizeof(length));
    if (!element.empty()) std::memcpy(out.data() + at + sizeof(length), element.data(), element.size());
  }
  return out;
}

// One input "x" and one output "y", int32, `columns` a row.
inline Signature row_signature(std::int64_t max_rows, std::int64_t columns = 2) {
  const Shape shape = max_rows > 0 ? Shape{-1, columns} : Shape{columns};
  return {{{"x", DType::kInt32, shape, false}}, {{"y", DType::kInt32, shape, false}}, max_rows};
}

inline LoadSpec identity_spec(std::int64_t max_rows = 8, int instances = 1, std::int64_t columns = 2) {
  const Signature signature = row_signature(max_rows, columns);
  LoadSpec spec;
  spec.model = "echo";
  spec.backend = "identity";
  spec.max_batch_rows = max_rows;
  spec.inputs = signature.inputs;
  spec.outputs = signature.outputs;
  spec.instance_count = instances;
  spec.limits.max_queue_requests = 1024;
  return spec;
}

// A request to identity_spec() whose every value is made of `seed`.
struct RowRequest {
  explicit RowRequest(CompletionQueue* completions, std::int64_t rows = 1, std::int32_t seed = 0,
                      std::int64_t columns = 2) {
    request.completions = completions;
    fill(rows, seed, columns);
  }
  void fill(std::int64_t rows, std::int32_t seed, std::int64_t columns = 2) {
    values.resize(static_cast<std::size_t>(rows * columns));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = seed * 31 + static_cast<std::int32_t>(i);
    request.model_name = "echo";
    request.inputs.clear();
    request.inputs.push_back({"x", DType::kInt32, Shape{rows, columns}, bytes_of(values)});
  }
  // Whether output "y" is what was sent.
  bool echoed() const {
    const Response& response = request.response;
    if (!response.status.is_ok() || response.outputs.size() != 1) return false;
    const OutputTensor& out = response.outputs.front();
    return out.shape == request.inputs.front().shape &&
           out.data.size() == values.size() * sizeof(std::int32_t) &&
           std::memcmp(out.data.data(), values.data(), out.data.size()) == 0;
  }

  std::vector<std::int32_t> values;
  Request request;
};

// A version without contents, for the layers below model.
class BareVersion final : public ServedVersion {
 public:
  explicit BareVersion(Signature signature_in) : ServedVersion("echo", 1) {
    signature = std::move(signature_in);
  }
};

// As the engine's submit does for a valid request: one input, all outputs.
inline void prepare(Request& request, const Signature& signature, Nanos now = 0) {
  request.rows = signature.batches() ? request.inputs.front().shape[0] : 1;
  request.input_order.clear();
  for (const TensorSpec& spec : signature.inputs) {
    int at = -1;
    for (std::size_t i = 0; i < request.inputs.size(); ++i) {
      if (request.inputs[i].name == spec.name) at = static_cast<int>(i);
    }
    request.input_order.push_back(at);
  }
  request.output_order.clear();
  for (std::size_t i = 0; i < signature.outputs.size(); ++i)
    request.output_order.push_back(static_cast<int>(i));
  request.times.enqueued = now;
  request.expires = request.deadline;
}

// Takes responses until `count` final ones came.
inline std::vector<Response*> wait_for(CompletionQueue& queue, std::size_t count,
                                       Nanos timeout = 20 * kSecond) {
  const Nanos until = monotonic_now() + timeout;
  std::vector<Response*> out;
  while (out.size() < count) {
    Response* response = queue.wait(until);
    if (response == nullptr) break;
    for (; response != nullptr; response = response->next_in_intake) out.push_back(response);
  }
  return out;
}

}  // namespace fastserve
