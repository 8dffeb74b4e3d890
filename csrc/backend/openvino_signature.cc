#include "backend/openvino_signature.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "backend/openvino_text.h"

namespace fastserve {
namespace {

// One input or output of the model.
struct Port {
  std::string name;                             // shown to clients
  std::unordered_set<std::string> other_names;  // a configuration may use any of the port's names
  DType dtype = DType::kFp32;
  ov::PartialShape shape;
};

enum class Side { kInput, kOutput };

std::string config_field(Side side, const std::string& name) {
  return std::string(side == Side::kInput ? "config.input" : "config.output") + "[\"" + name + "\"]";
}

// OpenVINO numbers nameless nodes with a counter of the process, so those names differ from load to load: not used.
std::string made_up_name(Side side, std::size_t index, const std::set<std::string>& taken) {
  std::string name = (side == Side::kInput ? "input_" : "output_") + std::to_string(index);
  while (taken.contains(name)) name += "_";
  return name;
}

Result<std::vector<Port>> read_ports(const std::vector<ov::Output<ov::Node>>& nodes, Side side) {
  std::vector<Port> ports;
  std::set<std::string> taken;
  for (const auto& node : nodes) taken.insert(node.get_names().begin(), node.get_names().end());
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    Port port;
    port.other_names = nodes[i].get_names();
    port.name = port.other_names.empty() ? made_up_name(side, i, taken) : nodes[i].get_any_name();
    port.shape = nodes[i].get_partial_shape();
    const std::string field =
        std::string(side == Side::kInput ? "input" : "output") + " \"" + port.name + "\" of the model";
    FS_ASSIGN_OR_RETURN(port.dtype, dtype_from_openvino(nodes[i].get_element_type(), field));
    if (port.shape.rank().is_static() && port.shape.size() > kMaxRank) {
      return unimplemented(field + ": has " + std::to_string(port.shape.size()) + " dimensions, at most " +
                           std::to_string(kMaxRank) + " are supported");
    }
    ports.push_back(std::move(port));
  }
  return ports;
}

bool answers_to(const Port& port, const std::string& name) {
  return port.name == name || port.other_names.contains(name);
}

std::string quoted_names(const std::vector<Port>& ports) {
  std::string text;
  for (const Port& port : ports) text += (text.empty() ? "\"" : ", \"") + port.name + "\"";
  return text.empty() ? "none" : text;
}

// Index of the port that each configured tensor means, in the configuration's order.
Result<std::vector<std::size_t>> match(const std::vector<Port>& ports, const std::vector<TensorSpec>& given,
                                       Side side) {
  std::vector<std::size_t> order;
  for (const TensorSpec& spec : given) {
    const auto port = std::ranges::find_if(ports, [&](const Port& p) { return answers_to(p, spec.name); });
    if (port == ports.end()) {
      return invalid_argument(config_field(side, spec.name) + ": the model has no such " +
                              (side == Side::kInput ? "input" : "output") + ", it has " +
                              quoted_names(ports));
    }
    const auto index = static_cast<std::size_t>(port - ports.begin());
    if (std::ranges::find(order, index) != order.end()) {
      return invalid_argument(config_field(side, spec.name) + ": the model's \"" + port->name +
                              "\" is given twice");
    }
    order.push_back(index);
  }
  return order;
}

// The configuration's shapes have the rows in front when `batch` is 1; its own dims do not, hence dims[i - batch].
Result<ov::PartialShape> narrow(const Port& port, const TensorSpec& spec, Side side, std::size_t batch) {
  const std::string field = config_field(side, spec.name);
  if (spec.dtype != port.dtype) {
    return invalid_argument(field + ".data_type: got " + std::string(dtype_name(spec.dtype)) +
                            ", model has " + std::string(dtype_name(port.dtype)));
  }
  ov::PartialShape shape = port.shape;
  if (shape.rank().is_dynamic()) shape = ov::PartialShape(std::vector<ov::Dimension>(spec.shape.rank()));
  if (shape.size() != spec.shape.rank()) {
    return invalid_argument(field + ".dims: got " + spec.shape.str() + ", model has " +
                            port.shape.to_string() + (batch == 1 ? " (both with the rows in front)" : ""));
  }
  for (std::size_t i = batch; i < shape.size(); ++i) {
    if (spec.shape[i] < 0) continue;
    if (!shape[i].compatible(spec.shape[i])) {
      return invalid_argument(field + ".dims[" + std::to_string(i - batch) + "]: got " +
                              std::to_string(spec.shape[i]) + ", model has " + shape[i].to_string());
    }
    shape[i] = spec.shape[i];
  }
  return shape;
}

bool free_in_front(const Port& port) {
  return port.shape.rank().is_static() && port.shape.size() > 0 && port.shape[0].is_dynamic();
}

Result<TensorSpec> to_spec(const Port& port, Side side, bool batches) {
  if (port.shape.rank().is_dynamic()) {
    return unimplemented(std::string(side == Side::kInput ? "input" : "output") + " \"" + port.name +
                         "\" of the model: has any number of dimensions; name them in the configuration");
  }
  TensorSpec spec{port.name, port.dtype, {}, false};
  for (const ov::Dimension& dim : port.shape) spec.shape.push_back(dim.is_static() ? dim.get_length() : -1);
  if (batches && !spec.shape.empty()) spec.shape[0] = -1;
  return spec;
}

void reshape_to(ov::Model& model, const std::vector<Port>& inputs, const std::optional<ov::Dimension>& rows) {
  std::map<std::size_t, ov::PartialShape> shapes;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    shapes[i] = inputs[i].shape;
    if (rows) shapes[i][0] = *rows;
  }
  model.reshape(shapes);
}

// Runs shape inference with a number of rows that no model has by itself and looks whether every output follows.
// nullopt: they do; else the reason.
std::optional<std::string> rows_do_not_follow(const ov::Model& model, const std::vector<Port>& inputs) {
  constexpr std::int64_t kTrialRows = 7;
  const std::shared_ptr<ov::Model> trial = model.clone();
  try {
    reshape_to(*trial, inputs, ov::Dimension(kTrialRows));
  } catch (const std::exception& e) {
    return "the model does not accept another number of rows: " + openvino_reason(e.what());
  }
  for (std::size_t i = 0; i < trial->outputs().size(); ++i) {
    const ov::PartialShape shape = trial->output(i).get_partial_shape();
    if (shape.rank().is_static() && shape.size() > 0 && shape[0] == ov::Dimension(kTrialRows)) continue;
    return "the shape of output " + std::to_string(i) + " is " + shape.to_string() + " for inputs of " +
           std::to_string(kTrialRows) + " rows";
  }
  return std::nullopt;
}

// "" when it can; else why not.
std::string why_not_batched(const ov::Model& model, const std::vector<Port>& inputs,
                            bool leading_one_will_do) {
  for (const Port& port : inputs) {
    if (free_in_front(port)) continue;
    const bool one =
        port.shape.rank().is_static() && port.shape.size() > 0 && port.shape[0] == ov::Dimension(1);
    if (one && leading_one_will_do) continue;
    return "input \"" + port.name + "\" has shape " + port.shape.to_string() +
           ", without a free dimension in front";
  }
  return rows_do_not_follow(model, inputs).value_or("");
}

Result<std::int64_t> decide_rows(const ov::Model& model, const std::vector<Port>& inputs,
                                 const LoadSpec& spec, std::string& reason) {
  if (spec.max_batch_rows == 0) {
    reason = "off by configuration";
    return std::int64_t{0};
  }
  const std::string obstacle = why_not_batched(model, inputs, spec.max_batch_rows > 0);
  if (spec.max_batch_rows > 0) {
    if (!obstacle.empty()) {
      return invalid_argument("config.max_batch_size: got " + std::to_string(spec.max_batch_rows) + ", but " +
                              obstacle);
    }
    reason = "by configuration";
    return spec.max_batch_rows;
  }
  reason = obstacle.empty() ? "every input and output has a free leading dimension" : "off: " + obstacle;
  return obstacle.empty() ? kDefaultMaxBatchRows : std::int64_t{0};
}

// When nothing is said about batching (-1), the given shapes may be with or without rows in front.
std::size_t batch_dims(const LoadSpec& spec) { return spec.max_batch_rows > 0 ? 1 : 0; }

Status apply_inputs(std::vector<Port>& ports, const LoadSpec& spec) {
  if (spec.inputs.empty()) return Status::ok();
  FS_ASSIGN_OR_RETURN(const std::vector<std::size_t> order, match(ports, spec.inputs, Side::kInput));
  for (std::size_t i = 0; i < ports.size(); ++i) {
    const auto at = std::ranges::find(order, i);
    if (at == order.end())
      return invalid_argument("config.input: input \"" + ports[i].name + "\" of the model is missing");
    const TensorSpec& given = spec.inputs[static_cast<std::size_t>(at - order.begin())];
    if (given.optional) {
      return invalid_argument("config.input[\"" + given.name +
                              "\"].optional: got true, want false: the model needs it");
    }
    FS_ASSIGN_OR_RETURN(ports[i].shape, narrow(ports[i], given, Side::kInput, batch_dims(spec)));
    ports[i].name = given.name;
  }
  return Status::ok();
}

// A configuration may leave outputs out: then the model does not serve them.
Status apply_outputs(std::vector<Port>& ports, const LoadSpec& spec, std::vector<std::size_t>& served) {
  if (spec.outputs.empty()) {
    for (std::size_t i = 0; i < ports.size(); ++i) served.push_back(i);
    return Status::ok();
  }
  FS_ASSIGN_OR_RETURN(served, match(ports, spec.outputs, Side::kOutput));
  for (std::size_t i = 0; i < served.size(); ++i) {
    Port& port = ports[served[i]];
    FS_ASSIGN_OR_RETURN(port.shape, narrow(port, spec.outputs[i], Side::kOutput, batch_dims(spec)));
    port.name = spec.outputs[i].name;
  }
  return Status::ok();
}

}  // namespace

Result<OpenVinoSignature> resolve_signature(ov::Model& model, const LoadSpec& spec) {
  OpenVinoSignature resolved;
  // Some readers take an empty file for an empty model.
  if (model.inputs().empty() || model.outputs().empty()) {
    return invalid_argument(std::string("the model has no ") + (model.inputs().empty() ? "input" : "output"));
  }
  FS_ASSIGN_OR_RETURN(std::vector<Port> inputs, read_ports(model.inputs(), Side::kInput));
  FS_RETURN_IF_ERROR(apply_inputs(inputs, spec));
  FS_ASSIGN_OR_RETURN(resolved.signature.max_batch_rows, decide_rows(model, inputs, spec, resolved.batching));
  const bool batches = resolved.signature.batches();
  reshape_to(model, inputs,
             batches ? std::optional(ov::Dimension(1, resolved.signature.max_batch_rows)) : std::nullopt);

  FS_ASSIGN_OR_RETURN(std::vector<Port> outputs, read_ports(model.outputs(), Side::kOutput));
  FS_RETURN_IF_ERROR(apply_outputs(outputs, spec, resolved.output_ports));
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    FS_ASSIGN_OR_RETURN(TensorSpec tensor, to_spec(inputs[i], Side::kInput, batches));
    resolved.signature.inputs.push_back(std::move(tensor));
    resolved.input_ports.push_back(i);
  }
  for (const std::size_t port : resolved.output_ports) {
    FS_ASSIGN_OR_RETURN(TensorSpec tensor, to_spec(outputs[port], Side::kOutput, batches));
    resolved.signature.outputs.push_back(std::move(tensor));
  }
  return resolved;
}

void reshape_rows(ov::Model& model, const OpenVinoSignature& resolved, const ov::Dimension& rows) {
  std::map<std::size_t, ov::PartialShape> shapes;
  for (std::size_t i = 0; i < resolved.input_ports.size(); ++i) {
    // From the model, not the signature: bounds of other dimensions stay.
    ov::PartialShape shape = model.input(resolved.input_ports[i]).get_partial_shape();
    if (resolved.signature.batches()) shape[0] = rows;
    shapes[resolved.input_ports[i]] = shape;
  }
  model.reshape(shapes);
}

Result<DType> dtype_from_openvino(const ov::element::Type& type, const std::string& field) {
  switch (static_cast<ov::element::Type_t>(type)) {
    case ov::element::Type_t::boolean:
      return DType::kBool;  // one byte each
    case ov::element::Type_t::u8:
      return DType::kUint8;
    case ov::element::Type_t::u16:
      return DType::kUint16;
    case ov::element::Type_t::u32:
      return DType::kUint32;
    case ov::element::Type_t::u64:
      return DType::kUint64;
    case ov::element::Type_t::i8:
      return DType::kInt8;
    case ov::element::Type_t::i16:
      return DType::kInt16;
    case ov::element::Type_t::i32:
      return DType::kInt32;
    case ov::element::Type_t::i64:
      return DType::kInt64;
    case ov::element::Type_t::f16:
      return DType::kFp16;
    case ov::element::Type_t::bf16:
      return DType::kBf16;
    case ov::element::Type_t::f32:
      return DType::kFp32;
    case ov::element::Type_t::f64:
      return DType::kFp64;
    default:
      return unimplemented(field + ": element type " + type.to_string() + " is not supported");
  }
}

ov::element::Type dtype_to_openvino(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return ov::element::boolean;
    case DType::kUint8:
      return ov::element::u8;
    case DType::kUint16:
      return ov::element::u16;
    case DType::kUint32:
      return ov::element::u32;
    case DType::kUint64:
      return ov::element::u64;
    case DType::kInt8:
      return ov::element::i8;
    case DType::kInt16:
      return ov::element::i16;
    case DType::kInt32:
      return ov::element::i32;
    case DType::kInt64:
      return ov::element::i64;
    case DType::kFp16:
      return ov::element::f16;
    case DType::kBf16:
      return ov::element::bf16;
    case DType::kFp32:
      return ov::element::f32;
    case DType::kFp64:
      return ov::element::f64;
    case DType::kBytes:
      break;
  }
  return ov::element::dynamic;
}

}  // namespace fastserve
