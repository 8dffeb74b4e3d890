#include "backend/worker_frame.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "backend/worker_wire.h"

namespace fastserve {
namespace {

using worker::RecordReader;
using worker::RecordWriter;

constexpr std::size_t kMostTensors = 4096;                          // of a signature, each way
constexpr std::size_t kMostTextBytes = worker::kMostParameterText;  // of a name or an error too

// ---- what is told at first -------------------------------------------------------------------------------------------

void put_shape(const Shape& shape, RecordWriter& out) {
  out.put(static_cast<std::uint32_t>(shape.rank()));
  for (const std::int64_t dim : shape.dims()) out.put(dim);
}

void put_tensors(const std::vector<TensorSpec>& tensors, RecordWriter& out) {
  out.put(static_cast<std::uint32_t>(tensors.size()));
  for (const TensorSpec& tensor : tensors) {
    out.put_text(tensor.name);
    out.put(static_cast<std::uint8_t>(tensor.dtype));
    put_shape(tensor.shape, out);
    out.put(static_cast<std::uint8_t>(tensor.optional));
  }
}

// ---- what is read ----------------------------------------------------------------------------------------------------

std::optional<DType> get_dtype(RecordReader& in) {
  const auto number = in.get<std::uint8_t>();
  if (!in.ok() || number >= kDTypeCount) return std::nullopt;
  return static_cast<DType>(number);
}

bool get_shape(RecordReader& in, bool open, Shape& out) {
  const auto rank = in.get<std::uint32_t>();
  if (!in.ok() || rank > kMaxRank) return false;
  out.clear();
  for (std::uint32_t i = 0; i < rank; ++i) {
    const auto dim = in.get<std::int64_t>();
    if (dim < (open ? -1 : 0)) return false;
    out.push_back(dim);
  }
  return in.ok();
}

bool get_text(RecordReader& in, std::string& out) {
  const std::string_view text = in.get_text();
  if (!in.ok() || text.size() > kMostTextBytes) return false;
  out = text;
  return true;
}

bool get_tensors(RecordReader& in, std::vector<TensorSpec>& out) {
  const auto count = in.get<std::uint32_t>();
  if (!in.ok() || count > kMostTensors) return false;
  for (std::uint32_t i = 0; i < count; ++i) {
    TensorSpec& tensor = out.emplace_back();
    if (!get_text(in, tensor.name)) return false;
    const auto dtype = get_dtype(in);
    if (!dtype || !get_shape(in, true, tensor.shape)) return false;
    tensor.dtype = *dtype;
    tensor.optional = in.get<std::uint8_t>() != 0;
  }
  return in.ok();
}

Status get_failure(RecordReader& in) {
  const auto code = in.get<std::uint8_t>();
  std::string message;
  if (!get_text(in, message) || code == 0 || code > static_cast<std::uint8_t>(Code::kUnauthenticated))
    return internal_error("the worker's error is malformed");
  return {static_cast<Code>(code), std::move(message)};
}

bool get_description(RecordReader& in, WorkerDescription& out) {
  out.signature.max_batch_rows = in.get<std::int64_t>();
  if (out.signature.max_batch_rows < 0) return false;
  if (!get_tensors(in, out.signature.inputs) || !get_tensors(in, out.signature.outputs)) return false;
  const auto count = in.get<std::uint32_t>();
  if (!in.ok() || count > kMostTensors) return false;
  for (std::uint32_t i = 0; i < count; ++i) {
    std::string name;
    std::string value;
    if (!get_text(in, name) || !get_text(in, value)) return false;
    out.properties.insert_or_assign(std::move(name), std::move(value));
  }
  return get_text(in, out.platform) && in.at_end();
}

// ---- a batch ---------------------------------------------------------------------------------------------------------

void put_parameter(const Parameter& parameter, RecordWriter& out) {
  out.put_text(parameter.name);
  out.put(static_cast<std::uint8_t>(parameter.value.index()));
  if (const auto* flag = std::get_if<bool>(&parameter.value)) out.put(static_cast<std::uint8_t>(*flag));
  if (const auto* number = std::get_if<std::int64_t>(&parameter.value)) out.put(*number);
  if (const auto* number = std::get_if<std::uint64_t>(&parameter.value)) out.put(*number);
  if (const auto* number = std::get_if<double>(&parameter.value)) out.put(*number);
  if (const auto* text = std::get_if<std::string_view>(&parameter.value)) out.put_text(*text);
}

// All when it named none; the order is the signature's.
void put_wanted(const Request& request, std::size_t outputs, RecordWriter& out) {
  const bool all = request.output_order.size() >= outputs;
  out.put(static_cast<std::uint32_t>(all ? 0 : request.output_order.size()));
  if (all) return;
  for (const int output : request.output_order) out.put(static_cast<std::uint32_t>(output));
}

void put_request(const Slot& slot, std::size_t outputs, RecordWriter& out) {
  const Request& request = *slot.request;
  out.put(slot.rows);
  out.put_text(request.id);
  out.put(request.priority);
  out.put(request.queue_timeout_ns / kMicrosecond);
  // `binary_data_output` is for the front end, which has read it.
  const auto is_for_model = [](const Parameter& parameter) { return parameter.name != "binary_data_output"; };
  out.put(static_cast<std::uint32_t>(std::ranges::count_if(request.parameters, is_for_model)));
  for (const Parameter& parameter : request.parameters) {
    if (is_for_model(parameter)) put_parameter(parameter, out);
  }
  put_wanted(request, outputs, out);
}

// Rows [first, first + rows) of the batch's input; of strings, and of a model without batching, as the request had them.
void put_input(const BatchTensor& input, bool batches, const Slot& slot, const TensorView& view,
               WorkerMemory::Place place, std::uint64_t& strings_at, RecordWriter& out) {
  Shape shape = view.shape;
  std::uint64_t at = 0;
  std::uint64_t bytes = view.data.size();
  if (input.dtype == DType::kBytes) {
    at = std::exchange(strings_at, strings_at + bytes);
  } else if (batches) {
    const std::uint64_t row_bytes = shape.byte_count_from(input.dtype, 1).value_or(0);
    at = static_cast<std::uint64_t>(slot.first_row) * row_bytes;
    bytes = static_cast<std::uint64_t>(slot.rows) * row_bytes;
  }
  put_shape(shape, out);
  out.put(place.segment);
  out.put(place.offset + at);
  out.put(bytes);
}

// ---- a reply ---------------------------------------------------------------------------------------------------------

struct SlotReply {
  Status fault;
  std::vector<OutputTensor> outputs;
  ResponseParameters parameters;
};

struct ReplyReader {
  RecordReader in;
  std::span<const std::byte> room;
  WorkerBlock& block;
  Batch& batch;

  std::optional<OutputTensor> get_output();
  bool get_parameter(ResponseParameter& out);
  bool get_parameters(ResponseParameters& out);
  bool get_outputs(std::vector<OutputTensor>& out);
  bool read_slots(std::vector<SlotReply>& slots);
};

bool ReplyReader::get_parameter(ResponseParameter& out) {
  if (!get_text(in, out.name) || out.name.empty()) return false;
  switch (static_cast<worker::Kind>(in.get<std::uint8_t>())) {
    case worker::Kind::kBool:
      out.value = in.get<std::uint8_t>() != 0;
      return in.ok();
    case worker::Kind::kInt:
      out.value = in.get<std::int64_t>();
      return in.ok();
    case worker::Kind::kUint:
      out.value = in.get<std::uint64_t>();
      return in.ok();
    case worker::Kind::kDouble:
      out.value = in.get<double>();
      return in.ok();
    case worker::Kind::kString:
      return get_text(in, out.value.emplace<std::string>());
  }
  return false;
}

bool ReplyReader::get_parameters(ResponseParameters& out) {
  const auto count = in.get<std::uint32_t>();
  if (!in.ok() || count > worker::kMostParameters) return false;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (!get_parameter(out.emplace_back())) return false;
  }
  return true;
}

std::optional<OutputTensor> ReplyReader::get_output() {
  OutputTensor out;
  const auto index = in.get<std::uint32_t>();
  const auto dtype = get_dtype(in);
  if (!dtype || index >= batch.outputs().size() || !get_shape(in, false, out.shape)) return std::nullopt;
  const auto offset = in.get<std::uint64_t>();
  const auto bytes = in.get<std::uint64_t>();
  if (!in.ok() || offset > room.size() || bytes > room.size() - offset) return std::nullopt;
  out.index = static_cast<int>(index);
  out.dtype = *dtype;
  out.data = room.subspan(offset, bytes);
  if (*dtype == DType::kBytes) out.data = block.copies.emplace_back(out.data.begin(), out.data.end());
  return out;
}

bool ReplyReader::get_outputs(std::vector<OutputTensor>& out) {
  const auto count = in.get<std::uint32_t>();
  if (!in.ok() || count > batch.outputs().size()) return false;
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto output = get_output();
    if (!output) return false;
    out.push_back(*output);
  }
  return true;
}

bool ReplyReader::read_slots(std::vector<SlotReply>& slots) {
  if (in.get<std::uint32_t>() != batch.slots().size() || !in.ok()) return false;
  slots.resize(batch.slots().size());
  for (SlotReply& slot : slots) {
    if (in.get<std::uint8_t>() != 0) {
      slot.fault = get_failure(in);
      if (!in.ok()) return false;
    } else if (!get_outputs(slot.outputs) || !get_parameters(slot.parameters)) {
      return false;
    }
  }
  return in.at_end();
}

// Outputs that the request did not ask for need not be there: empty tensors stand for them.
void set_slot(Batch& batch, std::size_t slot, const std::vector<OutputTensor>& outputs) {
  const Signature& signature = batch.signature();
  const Slot& at = batch.slots()[slot];
  const std::vector<int>& wanted = at.request->output_order;
  for (const OutputTensor& output : outputs)
    batch.set_slot_output(slot, static_cast<std::size_t>(output.index), output.dtype, output.shape,
                          output.data);
  for (std::size_t i = 0; i < signature.outputs.size(); ++i) {
    const auto has = [i](const OutputTensor& output) { return output.index == static_cast<int>(i); };
    if (std::ranges::any_of(outputs, has) || std::ranges::count(wanted, static_cast<int>(i)) != 0) continue;
    const Shape none = signature.batches() ? Shape{at.rows, 0} : Shape{0};
    batch.set_slot_output(slot, i, signature.outputs[i].dtype, none, {});
  }
}

}  // namespace

void write_worker_spec(const LoadSpec& spec, const WorkerSpec& worker, RecordWriter& out) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path given = fs::absolute(spec.path, error);
  const fs::path folder = fs::is_directory(given, error) ? given : given.parent_path();
  out.put_text(spec.model);
  out.put(spec.version);
  out.put_text(given.string());
  out.put_text(folder.string());
  out.put_text(folder.parent_path().string());
  out.put_text(spec.backend);
  out.put(static_cast<std::int64_t>(worker.instance));
  out.put_text(worker.instance_name);
  out.put(static_cast<std::int64_t>(worker.threads));
  out.put(spec.max_batch_rows);
  out.put(static_cast<std::uint32_t>(spec.parameters.size()));
  for (const auto& [name, value] : spec.parameters) {
    out.put_text(name);
    out.put_text(value);
  }
  put_tensors(spec.inputs, out);
  put_tensors(spec.outputs, out);
}

Result<WorkerDescription> read_worker_description(std::span<const std::byte> record) {
  RecordReader in(record);
  if (in.get<std::uint8_t>() != 0) return get_failure(in);
  WorkerDescription out;
  if (!get_description(in, out)) return internal_error("the worker's description of the model is malformed");
  return out;
}

Status write_batch(Batch& batch, const WorkerMemory& memory, RecordWriter& out) {
  const Signature& signature = batch.signature();
  const std::size_t inputs = signature.inputs.size();
  std::vector<WorkerMemory::Place> places(inputs);
  std::vector<std::uint64_t> strings_at(inputs);
  for (std::size_t i = 0; i < inputs; ++i) {
    const BatchTensor& input = batch.inputs()[i];
    if (!input.present) continue;
    const auto place = memory.place_of(input.data);
    if (!place) return internal_error("a batch's input is not in the workers' memory");
    places[i] = *place;
  }
  out.put(static_cast<std::uint32_t>(batch.slots().size()));
  for (const Slot& slot : batch.slots()) {
    put_request(slot, signature.outputs.size(), out);
    for (std::size_t i = 0; i < inputs; ++i) {
      const BatchTensor& input = batch.inputs()[i];
      out.put(static_cast<std::uint8_t>(input.present));
      if (!input.present) continue;
      const auto position = static_cast<std::size_t>(slot.request->input_order[i]);
      put_input(input, signature.batches(), slot, slot.request->inputs[position], places[i], strings_at[i],
                out);
    }
  }
  return Status::ok();
}

std::size_t expected_room(const Batch& batch, std::size_t dynamic_row_bytes) {
  constexpr std::size_t kForErrors = 4096;
  constexpr std::size_t kOutputRecord = 64 + kMaxRank * 8;
  const Signature& signature = batch.signature();
  const auto rows = static_cast<std::size_t>(std::max<std::int64_t>(batch.rows(), 1));
  std::size_t bytes = kForErrors;
  for (const TensorSpec& output : signature.outputs) {
    const auto row = output.shape.byte_count_from(output.dtype, signature.batches() ? 1 : 0);
    bytes += rows * row.value_or(0) + batch.slots().size() * (worker::kAlign + kOutputRecord);
  }
  return bytes + rows * dynamic_row_bytes;
}

BatchReply read_reply(std::span<const std::byte> record, std::span<const std::byte> room, WorkerBlock& block,
                      Batch& batch) {
  BatchReply malformed{internal_error("the worker's reply is malformed"), true};
  ReplyReader reader{RecordReader(record), room, block, batch};
  switch (static_cast<worker::Answered>(reader.in.get<std::uint8_t>())) {
    case worker::Answered::kFailed: {
      Status status = get_failure(reader.in);
      return reader.in.at_end() ? BatchReply{std::move(status), false} : malformed;
    }
    case worker::Answered::kWhole: {
      std::vector<OutputTensor> outputs;
      if (!reader.get_outputs(outputs) || !reader.in.at_end()) return malformed;
      for (const OutputTensor& output : outputs) {
        batch.set_output(static_cast<std::size_t>(output.index), output.dtype, output.shape,
                         output.data.data(), output.data.size());
      }
      return {};
    }
    case worker::Answered::kBySlot: {
      std::vector<SlotReply> slots;
      if (!reader.read_slots(slots)) return malformed;
      for (std::size_t s = 0; s < slots.size(); ++s) {
        if (!slots[s].fault.is_ok()) {
          batch.fail_slot(s, std::move(slots[s].fault));
          continue;
        }
        set_slot(batch, s, slots[s].outputs);
        if (!slots[s].parameters.empty()) batch.set_slot_parameters(s, std::move(slots[s].parameters));
      }
      return {};
    }
  }
  return malformed;
}

}  // namespace fastserve
