#include "backend/openvino_precision.h"

#include <algorithm>
#include <array>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

namespace fastserve {
namespace {

// Where nearly all of the time goes; what stands around them (reorders, shape arithmetic) would only blur the picture.
constexpr std::array<std::string_view, 10> kWorkers = {
    "Convolution", "Deconvolution", "FullyConnected", "MatMul", "RNNCell",
    "RNNSeq",      "LSTMSequence",  "GRUSequence",    "MHA",    "ScaledDotProductAttention"};

std::string text_of(const ov::RTMap& notes, const char* name) {
  const auto found = notes.find(name);
  return found != notes.end() && found->second.is<std::string>() ? found->second.as<std::string>() : "";
}

bool works(const std::string& kind) { return std::ranges::find(kWorkers, kind) != kWorkers.end(); }
// Where small models' products are fused with what is around them; beside workers it is element-wise arithmetic.
bool is_fused(const std::string& kind) { return kind == "Subgraph"; }

using Counts = std::vector<std::pair<std::string, int>>;  // precision and operations, most first

template <class Wanted>
Counts count(const ov::Model& executed, Wanted wanted) {
  std::map<std::string, int> by_precision;
  for (const auto& node : executed.get_ops()) {
    const std::string precision = text_of(node->get_rt_info(), "runtimePrecision");
    if (!precision.empty() && wanted(text_of(node->get_rt_info(), "layerType"))) ++by_precision[precision];
  }
  Counts counts(by_precision.begin(), by_precision.end());
  std::ranges::stable_sort(counts, std::ranges::greater(), &Counts::value_type::second);
  return counts;
}

std::string in_words(const Counts& counts) {
  std::string text;
  for (const auto& [precision, operations] : counts)
    text += (text.empty() ? "" : ", ") + precision + " " + std::to_string(operations);
  return text;
}

}  // namespace

ExecutionPrecision execution_precision(const ov::CompiledModel& model) {
  ExecutionPrecision out;
  try {
    const auto type = model.get_property(ov::hint::inference_precision);
    if (type != ov::element::dynamic) out.name = type.to_string();
    const auto executed = model.get_runtime_model();
    Counts counts = count(*executed, works);
    if (counts.empty()) counts = count(*executed, is_fused);
    if (!counts.empty()) out.name = counts.front().first;
    out.nodes = in_words(counts);
  } catch (const std::exception&) {
    // A device without the property, or without an executed graph: what is known so far will do.
  }
  return out;
}

std::string precision_in_words(const std::string& model, const ExecutionPrecision& precision, bool pinned) {
  const std::string opens = "model '" + model + "' computes in ";
  const std::string nodes = precision.nodes.empty() ? "" : "; operations: " + precision.nodes;
  if (precision.name.empty()) return opens + "a precision that the device does not tell" + nodes;
  if (pinned)
    return opens + precision.name + " (by INFERENCE_PRECISION_HINT or EXECUTION_MODE_HINT" + nodes + ")";
  return opens + precision.name + " (OpenVINO's choice on this CPU; pin it with INFERENCE_PRECISION_HINT" +
         nodes + ")";
}

}  // namespace fastserve
