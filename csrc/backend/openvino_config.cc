#include "backend/openvino_config.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <openvino/opsets/opset8.hpp>
#include <set>
#include <vector>

#include "backend/openvino_text.h"

namespace fastserve {
namespace {

std::string field(const std::string& name) { return "parameters[\"" + name + "\"]"; }

// Not properties of a device but of the core; compile_model takes them all the same.
const std::set<std::string>& core_properties() {
  static const std::set<std::string> names = {"CACHE_DIR", "CACHE_MODE", "ENABLE_MMAP"};
  return names;
}

bool in_capitals(const std::string& name) {
  return !name.empty() && std::ranges::all_of(name, [](unsigned char c) {
    return std::isupper(c) != 0 || std::isdigit(c) != 0 || c == '_';
  });
}

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

Result<std::set<std::string>> writable_properties(ov::Core& core, const std::string& device) {
  try {
    std::set<std::string> names = core_properties();
    for (const ov::PropertyName& name : core.get_property(device, ov::supported_properties)) {
      if (name.is_mutable()) names.insert(name);
    }
    return names;
  } catch (const std::exception&) {
    return invalid_argument(field("DEVICE") + ": got \"" + device +
                            "\", want a device of this machine: " + join(core.get_available_devices()));
  }
}

Status read_prepared(const std::string& text, Prepared& prepared) {
  if (text == "auto") {
    prepared = Prepared::kAuto;
  } else if (text == "static") {
    prepared = Prepared::kStatic;
  } else if (text == "dynamic") {
    prepared = Prepared::kDynamic;
  } else if (text == "lone") {
    prepared = Prepared::kLone;
  } else {
    return invalid_argument(field("prepared") + ": got \"" + text + "\", want auto, static, dynamic or lone");
  }
  return Status::ok();
}

Status read_depth(const std::string& text, int& depth) {
  if (text == "auto") return Status::ok();
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > kMaxDepth) {
    return invalid_argument(field("depth") + ": got \"" + text + "\", want auto or 1 to " +
                            std::to_string(kMaxDepth));
  }
  depth = value;
  return Status::ok();
}

Status read_tune(const std::string& text, std::optional<bool>& tune) {
  if (text == "auto") return Status::ok();
  if (text != "load" && text != "off")
    return invalid_argument(field("tune") + ": got \"" + text + "\", want auto, load or off");
  tune = text == "load";
  return Status::ok();
}

}  // namespace

Result<OpenVinoConfig> read_openvino_config(ov::Core& core,
                                            const std::map<std::string, std::string>& parameters) {
  OpenVinoConfig config;
  if (const auto device = parameters.find("DEVICE"); device != parameters.end())
    config.device = device->second;
  FS_ASSIGN_OR_RETURN(const std::set<std::string> known, writable_properties(core, config.device));
  for (const auto& [name, text] : parameters) {
    if (name == "DEVICE") continue;
    if (name == "prepared") {
      FS_RETURN_IF_ERROR(read_prepared(text, config.prepared));
    } else if (name == "depth") {
      FS_RETURN_IF_ERROR(read_depth(text, config.depth));
    } else if (name == "tune") {
      FS_RETURN_IF_ERROR(read_tune(text, config.tune));
    } else if (!in_capitals(name)) {
      return invalid_argument(
          field(name) +
          ": unknown to backend 'openvino', want prepared, depth, tune, DEVICE or a property of OpenVINO");
    } else if (!known.contains(name)) {
      return invalid_argument(field(name) + ": OpenVINO's " + config.device +
                              " device has no such property to set");
    } else {
      config.properties[name] = text;
    }
  }
  return config;
}

Status blame_property(ov::Core& core, const OpenVinoConfig& config) {
  const auto x = std::make_shared<ov::opset8::Parameter>(ov::element::f32, ov::PartialShape{1});
  const auto y = std::make_shared<ov::opset8::Relu>(x);
  const auto model = std::make_shared<ov::Model>(ov::OutputVector{y}, ov::ParameterVector{x});
  for (const auto& [name, value] : config.properties) {
    try {
      core.compile_model(model, config.device, {{name, value}});
    } catch (const std::exception& e) {
      return invalid_argument(field(name) + ": got \"" + value.as<std::string>() +
                              "\": " + openvino_reason(e.what()));
    }
  }
  return Status::ok();
}

}  // namespace fastserve
