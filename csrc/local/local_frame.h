// The cells of the local transport's rings (local/shared_ring.h): a request or a cancellation from the client, an answer from the
// server. Tensors are not in them: they stand in regions, memory that the client gave the server (local/local_handshake.h).
// Pure: bytes in, values out. Whoever reads a cell copies it out of the shared memory first, so that nothing changes between
// the check and the use; what is decoded points into that copy.
//
// A cell, in the byte order of the machine; texts follow the record that has their lengths:
//   request  kind u16, bytes u16 (of the cell, all that is used), inputs u16, outputs u16, tag u64, model u32, priority u32,
//            timeout_us u64, queue_timeout_us u64, name, version, id: lengths u16, parameters u16; then the three texts, the
//            inputs, the outputs, the parameters
//    input   region u32, index u16, name length u16, dtype u8, rank u8, reserved u16, reserved u32, offset u64, bytes u64,
//            dimensions i64 each; then the name
//    output  region u32, index u16, name length u16, offset u64, room u64; then the name
//    parameter  name length u16, kind u8 (0 bool, 1 int64, 2 uint64, 3 double, 4 text), reserved u8, text length u32, value u64
//            (of a text: 0); then the name and the text
//   answer   kind u16, bytes u16, code u16, outputs u16, tag u64, message length u16, parameters u16, reserved u16 x 2; then
//            the message, the outputs, the parameters (as of a request)
//    output  dtype u8, rank u8, reserved u16, reserved u32, bytes u64, dimensions i64 each
// Thread: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace fastserve {

inline constexpr std::uint32_t kLeastCellBytes = 256;
inline constexpr std::uint32_t kMostCellBytes = 32768;  // lengths are 16 bits
inline constexpr std::uint32_t kDefaultCellBytes = 1024;
inline constexpr std::uint32_t kMostCells = 4096;
inline constexpr std::uint32_t kDefaultCells = 128;
inline constexpr std::size_t kMostLocalInputs = 64;
inline constexpr std::size_t kMostLocalOutputs = 64;
inline constexpr std::size_t kMostLocalParameters = 64;

enum class CellKind : std::uint16_t { kRequest = 1, kCancel = 2, kAnswer = 3 };

// A tensor is named by its place in the signature that OPEN brought, or by name: `name` when it is not empty.
struct LocalInput {
  std::string_view name;
  std::uint16_t index = 0;
  DType dtype = DType::kFp32;
  Shape shape;
  std::uint32_t region = 0;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};
struct LocalOutput {
  std::string_view name;
  std::uint16_t index = 0;
  std::uint32_t region = 0;
  std::uint64_t offset = 0;
  std::uint64_t room = 0;  // bytes
};
// The model's own (batch/request.h has the same alternatives).
struct LocalParameter {
  std::string_view name;
  std::variant<bool, std::int64_t, std::uint64_t, double, std::string_view> value;
};
struct LocalRequest {
  CellKind kind = CellKind::kRequest;  // kCancel: only the tag counts
  std::uint64_t tag = 0;               // the client's own; the answer repeats it
  std::uint32_t model = 0;             // that OPEN gave; 0: model_name and model_version say it
  std::uint32_t priority = 0;
  std::uint64_t timeout_us = 0;        // until the answer; 0 = none
  std::uint64_t queue_timeout_us = 0;  // in the queue; 0 = none
  std::string_view model_name;
  std::string_view model_version;
  std::string_view id;
  std::vector<LocalInput> inputs;
  std::vector<LocalOutput> outputs;  // a place for each output that is wanted
  std::vector<LocalParameter> parameters;
};

struct LocalAnswerOutput {
  DType dtype = DType::kFp32;
  Shape shape;
  std::uint64_t bytes = 0;  // written to the place that the request gave
};
struct LocalAnswer {
  std::uint64_t tag = 0;
  Code code = Code::kOk;
  std::string_view message;                // cut off where the cell ends
  std::vector<LocalAnswerOutput> outputs;  // in the order of LocalRequest::outputs
  std::vector<LocalParameter> parameters;  // the model's own
};

// How much of a cell is used, as it says itself; 0 when that cannot be. `cell` may be shared memory: look once, copy that much.
std::size_t used_bytes(std::span<const std::byte> cell);

// RESOURCE_EXHAUSTED when the cell is too small for it.
Status encode_request(std::span<std::byte> cell, const LocalRequest& request);
Status encode_answer(std::span<std::byte> cell, const LocalAnswer& answer);

// `bytes`: a copy, used_bytes long. DATA_LOSS: this is no cell, the peer cannot be trusted any more. INVALID_ARGUMENT, naming
// the field: the request is wrong, tag and kind are set. Keeps the capacity of the vectors.
Status decode_request(std::span<const std::byte> bytes, LocalRequest& request);
Status decode_answer(std::span<const std::byte> bytes, LocalAnswer& answer);

}  // namespace fastserve
