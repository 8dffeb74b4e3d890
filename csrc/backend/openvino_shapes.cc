#include "backend/openvino_shapes.h"

#include <algorithm>
#include <map>
#include <openvino/core/graph_util.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/op/parameter.hpp>
#include <string>

#include "backend/openvino_text.h"

namespace fastserve {
namespace {

// Shapes, axes and indices that shape inference reads are smaller, weights that are worth dropping larger.
constexpr std::size_t kSmallConstantElements = 256;

std::string describe(const ov::Model& model, std::span<const BatchTensor> inputs,
                     std::span<const std::size_t> ports) {
  std::string text;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const auto port = model.input(ports[i]);
    text += (i == 0 ? "" : ", ") +
            (port.get_names().empty() ? "input " + std::to_string(i) : port.get_any_name()) + " " +
            inputs[i].shape.str();
  }
  return text;
}

}  // namespace

bool OpenVinoShapes::needed(const Signature& signature) {
  return std::ranges::any_of(signature.inputs, [&](const TensorSpec& spec) {
    return std::ranges::any_of(spec.shape.dims().subspan(signature.batches() ? 1 : 0),
                               [](std::int64_t d) { return d < 0; });
  });
}

OpenVinoShapes::OpenVinoShapes(const ov::Model& weightless, const OpenVinoSignature& resolved)
    : model_(weightless.clone()), ports_(resolved.input_ports) {}

Status OpenVinoShapes::check(std::span<const BatchTensor> inputs) {
  key_.clear();
  for (const BatchTensor& input : inputs)
    key_.insert(key_.end(), input.shape.dims().begin(), input.shape.dims().end());
  if (good_.contains(key_)) return Status::ok();
  std::map<std::size_t, ov::PartialShape> shapes;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    ov::PartialShape& shape = shapes[ports_[i]];
    shape = ov::PartialShape(
        std::vector<ov::Dimension>(inputs[i].shape.dims().begin(), inputs[i].shape.dims().end()));
  }
  try {
    model_->reshape(shapes);
  } catch (const std::exception& e) {
    return invalid_argument("the model does not take inputs of these shapes (" +
                            describe(*model_, inputs, ports_) + "): " + openvino_reason(e.what()));
  }
  if (good_.size() >= kMostKnown) good_.clear();
  good_.insert(key_);
  return Status::ok();
}

std::shared_ptr<ov::Model> without_weights(const ov::Model& model) {
  std::shared_ptr<ov::Model> copy = model.clone();
  ov::ParameterVector stand_ins;
  for (const auto& node : copy->get_ordered_ops()) {
    const auto* constant = ov::as_type<const ov::op::v0::Constant>(node.get());
    if (constant == nullptr || ov::shape_size(constant->get_shape()) <= kSmallConstantElements) continue;
    const auto stand_in =
        std::make_shared<ov::op::v0::Parameter>(constant->get_element_type(), constant->get_shape());
    ov::replace_node(node, stand_in);
    stand_ins.push_back(stand_in);
  }
  copy->add_parameters(stand_ins);  // behind the model's own, whose indices stay
  copy->validate_nodes_and_infer_types();
  return copy;
}

}  // namespace fastserve
