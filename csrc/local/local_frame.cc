#include "local/local_frame.h"

#include <algorithm>
#include <bit>
#include <string>

#include "local/byte_cursor.h"

namespace fastserve {
namespace {

struct RequestHead {
  std::uint16_t kind, bytes, inputs, outputs;
  std::uint64_t tag;
  std::uint32_t model, priority;
  std::uint64_t timeout_us, queue_timeout_us;
  std::uint16_t name_bytes, version_bytes, id_bytes, parameters;
};
struct InputRecord {
  std::uint32_t region;
  std::uint16_t index, name_bytes;
  std::uint8_t dtype, rank;
  std::uint16_t reserved;
  std::uint32_t reserved_too;
  std::uint64_t offset, bytes;
};
struct OutputRecord {
  std::uint32_t region;
  std::uint16_t index, name_bytes;
  std::uint64_t offset, room;
};
struct ParameterRecord {
  std::uint16_t name_bytes;
  std::uint8_t kind, reserved;
  std::uint32_t text_bytes;
  std::uint64_t value;
};
struct AnswerHead {
  std::uint16_t kind, bytes, code, outputs;
  std::uint64_t tag;
  std::uint16_t message_bytes, parameters, reserved[2];
};
struct AnswerRecord {
  std::uint8_t dtype, rank;
  std::uint16_t reserved;
  std::uint32_t reserved_too;
  std::uint64_t bytes;
};
static_assert(sizeof(RequestHead) == 48 && sizeof(InputRecord) == 32 && sizeof(OutputRecord) == 24);
static_assert(sizeof(ParameterRecord) == 16);
static_assert(sizeof(AnswerHead) == 24 && sizeof(AnswerRecord) == 16);

constexpr std::size_t kBytesAt = 2;  // of `bytes` in both heads

std::uint16_t narrow(std::size_t n) {
  return static_cast<std::uint16_t>(std::min<std::size_t>(n, UINT16_MAX));
}

Status no_room(std::size_t cell_bytes) {
  return {Code::kResourceExhausted, "it does not fit into a cell of " + std::to_string(cell_bytes) +
                                        " bytes: connect with larger cells"};
}

Status broken(const char* what) {
  return {Code::kDataLoss, std::string("a cell that cannot be read: ") + what};
}

std::string field(const char* list, std::size_t i, const char* member) {
  return std::string(list) + "[" + std::to_string(i) + "]" + member;
}

void put_dims(ByteWriter& out, const Shape& shape) {
  for (const std::int64_t dim : shape.dims()) out.put(dim);
}

void take_dims(ByteReader& in, std::size_t rank, Shape& shape) {
  shape.clear();
  for (std::size_t i = 0; i < rank; ++i) shape.push_back(in.take<std::int64_t>());
}

Status decode_input(ByteReader& in, std::size_t at, LocalInput& input) {
  const auto record = in.take<InputRecord>();
  if (record.rank > kMaxRank) {
    return invalid_argument(field("inputs", at, ".shape") + ": got " + std::to_string(record.rank) +
                            " dimensions, want " + std::to_string(kMaxRank) + " or fewer");
  }
  take_dims(in, record.rank, input.shape);
  input.name = in.text(record.name_bytes);
  input.index = record.index;
  input.region = record.region;
  input.offset = record.offset;
  input.bytes = record.bytes;
  if (!in.ok()) return broken("an input is cut off");
  if (record.dtype >= kDTypeCount) {
    return invalid_argument(field("inputs", at, ".datatype") + ": got number " +
                            std::to_string(record.dtype) + ", want 0 to " + std::to_string(kDTypeCount - 1));
  }
  input.dtype = static_cast<DType>(record.dtype);
  return Status::ok();
}

void put_parameter(ByteWriter& out, const LocalParameter& parameter) {
  ParameterRecord record{narrow(parameter.name.size()), static_cast<std::uint8_t>(parameter.value.index()), 0,
                         0, 0};
  std::string_view text;
  if (const auto* flag = std::get_if<bool>(&parameter.value)) record.value = *flag ? 1 : 0;
  if (const auto* number = std::get_if<std::int64_t>(&parameter.value))
    record.value = static_cast<std::uint64_t>(*number);
  if (const auto* number = std::get_if<std::uint64_t>(&parameter.value)) record.value = *number;
  if (const auto* number = std::get_if<double>(&parameter.value))
    record.value = std::bit_cast<std::uint64_t>(*number);
  if (const auto* given = std::get_if<std::string_view>(&parameter.value)) text = *given;
  record.text_bytes = static_cast<std::uint32_t>(text.size());
  out.put(record);
  out.text(parameter.name);
  out.text(text);
}

Status decode_parameter(ByteReader& in, std::size_t at, LocalParameter& parameter) {
  const auto record = in.take<ParameterRecord>();
  parameter.name = in.text(record.name_bytes);
  const std::string_view text = in.text(record.text_bytes);
  if (!in.ok()) return broken("a parameter is cut off");
  if (record.reserved != 0) return broken("reserved bits are set");
  if (parameter.name.empty()) return invalid_argument(field("parameters", at, ".name") + ": is empty");
  switch (record.kind) {
    case 0:
      parameter.value = record.value != 0;
      break;
    case 1:
      parameter.value = static_cast<std::int64_t>(record.value);
      break;
    case 2:
      parameter.value = record.value;
      break;
    case 3:
      parameter.value = std::bit_cast<double>(record.value);
      break;
    case 4:
      parameter.value = text;
      break;
    default:
      return invalid_argument("parameters[\"" + std::string(parameter.name) + "\"]: got a value of kind " +
                              std::to_string(record.kind) + ", want 0 to 4");
  }
  return Status::ok();
}

Status too_many(const char* list, std::size_t got, std::size_t most) {
  return invalid_argument(std::string(list) + ": got " + std::to_string(got) + ", want " +
                          std::to_string(most) + " or fewer");
}

}  // namespace

std::size_t used_bytes(std::span<const std::byte> cell) {
  std::uint16_t bytes = 0;
  if (cell.size() < kBytesAt + sizeof(bytes)) return 0;
  std::memcpy(&bytes, cell.data() + kBytesAt, sizeof(bytes));
  return bytes > cell.size() ? 0 : bytes;
}

Status encode_request(std::span<std::byte> cell, const LocalRequest& request) {
  if (request.model_name.size() + request.model_version.size() + request.id.size() > cell.size())
    return no_room(cell.size());
  ByteWriter out(cell);
  RequestHead head{};
  head.kind = static_cast<std::uint16_t>(request.kind);
  head.tag = request.tag;
  head.inputs = narrow(request.inputs.size());
  head.outputs = narrow(request.outputs.size());
  head.model = request.model;
  head.priority = request.priority;
  head.timeout_us = request.timeout_us;
  head.queue_timeout_us = request.queue_timeout_us;
  head.name_bytes = narrow(request.model_name.size());
  head.version_bytes = narrow(request.model_version.size());
  head.id_bytes = narrow(request.id.size());
  head.parameters = narrow(request.parameters.size());
  out.put(head);
  out.text(request.model_name);
  out.text(request.model_version);
  out.text(request.id);
  for (const LocalInput& input : request.inputs) {
    out.put(InputRecord{input.region, input.index, narrow(input.name.size()),
                        static_cast<std::uint8_t>(input.dtype), static_cast<std::uint8_t>(input.shape.rank()),
                        0, 0, input.offset, input.bytes});
    put_dims(out, input.shape);
    out.text(input.name);
  }
  for (const LocalOutput& output : request.outputs) {
    out.put(
        OutputRecord{output.region, output.index, narrow(output.name.size()), output.offset, output.room});
    out.text(output.name);
  }
  for (const LocalParameter& parameter : request.parameters) put_parameter(out, parameter);
  if (!out.ok()) return no_room(cell.size());
  const std::uint16_t bytes = narrow(out.size());
  std::memcpy(cell.data() + kBytesAt, &bytes, sizeof(bytes));
  return Status::ok();
}

Status decode_request(std::span<const std::byte> bytes, LocalRequest& request) {
  ByteReader in(bytes);
  const auto head = in.take<RequestHead>();
  request.tag = head.tag;
  request.kind = static_cast<CellKind>(head.kind);
  request.inputs.clear();
  request.outputs.clear();
  request.parameters.clear();
  request.model = head.model;
  request.priority = head.priority;
  request.timeout_us = head.timeout_us;
  request.queue_timeout_us = head.queue_timeout_us;
  request.model_name = in.text(head.name_bytes);
  request.model_version = in.text(head.version_bytes);
  request.id = in.text(head.id_bytes);
  if (!in.ok()) return broken("its head is cut off");
  if (request.kind != CellKind::kRequest && request.kind != CellKind::kCancel) return broken("unknown kind");
  if (request.kind == CellKind::kCancel) return Status::ok();
  if (head.inputs > kMostLocalInputs) return too_many("inputs", head.inputs, kMostLocalInputs);
  if (head.outputs > kMostLocalOutputs) return too_many("outputs", head.outputs, kMostLocalOutputs);
  if (head.parameters > kMostLocalParameters)
    return too_many("parameters", head.parameters, kMostLocalParameters);
  if (head.outputs == 0) return invalid_argument("outputs: got none, want a place for each that is wanted");
  for (std::size_t i = 0; i < head.inputs; ++i) {
    FS_RETURN_IF_ERROR(decode_input(in, i, request.inputs.emplace_back()));
  }
  for (std::size_t i = 0; i < head.outputs; ++i) {
    const auto record = in.take<OutputRecord>();
    LocalOutput& output = request.outputs.emplace_back();
    output.name = in.text(record.name_bytes);
    output.index = record.index;
    output.region = record.region;
    output.offset = record.offset;
    output.room = record.room;
  }
  if (!in.ok()) return broken("an output is cut off");
  for (std::size_t i = 0; i < head.parameters; ++i) {
    FS_RETURN_IF_ERROR(decode_parameter(in, i, request.parameters.emplace_back()));
  }
  return in.left() == 0 ? Status::ok() : broken("bytes are left over");
}

Status encode_answer(std::span<std::byte> cell, const LocalAnswer& answer) {
  ByteWriter out(cell);
  AnswerHead head{};
  head.kind = static_cast<std::uint16_t>(CellKind::kAnswer);
  head.code = static_cast<std::uint16_t>(answer.code);
  head.outputs = narrow(answer.outputs.size());
  head.tag = answer.tag;
  const std::string_view message =
      answer.message.substr(0, cell.size() - std::min(cell.size(), sizeof(head)));
  head.message_bytes = narrow(message.size());
  head.parameters = narrow(answer.parameters.size());
  out.put(head);
  out.text(message);
  for (const LocalAnswerOutput& output : answer.outputs) {
    out.put(AnswerRecord{static_cast<std::uint8_t>(output.dtype),
                         static_cast<std::uint8_t>(output.shape.rank()), 0, 0, output.bytes});
    put_dims(out, output.shape);
  }
  for (const LocalParameter& parameter : answer.parameters) put_parameter(out, parameter);
  if (!out.ok()) return no_room(cell.size());
  const std::uint16_t bytes = narrow(out.size());
  std::memcpy(cell.data() + kBytesAt, &bytes, sizeof(bytes));
  return Status::ok();
}

Status decode_answer(std::span<const std::byte> bytes, LocalAnswer& answer) {
  ByteReader in(bytes);
  const auto head = in.take<AnswerHead>();
  answer.tag = head.tag;
  answer.code = static_cast<Code>(head.code);
  answer.outputs.clear();
  answer.parameters.clear();
  answer.message = in.text(head.message_bytes);
  if (!in.ok()) return broken("its head is cut off");
  if (head.kind != static_cast<std::uint16_t>(CellKind::kAnswer)) return broken("unknown kind");
  if (head.code > static_cast<std::uint16_t>(Code::kUnauthenticated)) return broken("unknown status code");
  if (head.outputs > kMostLocalOutputs) return broken("too many outputs");
  if (head.parameters > kMostLocalParameters) return broken("too many parameters");
  for (std::size_t i = 0; i < head.outputs; ++i) {
    const auto record = in.take<AnswerRecord>();
    if (record.rank > kMaxRank || record.dtype >= kDTypeCount) return broken("no such dtype or shape");
    LocalAnswerOutput& output = answer.outputs.emplace_back();
    output.dtype = static_cast<DType>(record.dtype);
    output.bytes = record.bytes;
    take_dims(in, record.rank, output.shape);
  }
  if (!in.ok()) return broken("an output is cut off");
  for (std::size_t i = 0; i < head.parameters; ++i) {
    const Status status = decode_parameter(in, i, answer.parameters.emplace_back());
    if (!status.is_ok()) return broken("a parameter makes no sense");
  }
  return in.left() == 0 ? Status::ok() : broken("bytes are left over");
}

}  // namespace fastserve
