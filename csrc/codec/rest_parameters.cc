#include "codec/rest_parameters.h"

#include <algorithm>
#include <limits>

#include "codec/json_tensor.h"
#include "codec/rest_infer.h"

namespace fastserve {
namespace {

constexpr std::string_view kReservedPrefix = "triton_";

constexpr std::string_view kSharedPrefix = "shared_memory_";

std::string parameter_field(const std::string& owner, std::string_view name) {
  return owner + (owner.empty() ? "" : ".") + "parameters[\"" + std::string(excerpt(name)) + "\"]";
}

Status duplicate_key(const std::string& field) { return invalid_argument(field + ": given twice"); }

// What stands at the cursor is of the wrong type. Numbers are echoed.
Status wrong_value(JsonReader& reader, const std::string& field, const std::string& want) {
  std::string got = "another type";
  const auto kind = reader.peek();
  JsonNumber number;
  if (kind == JsonReader::Kind::kInvalid) reader.fail("expected a value");
  if (kind == JsonReader::Kind::kNumber && reader.read_number(number)) got = number.text;
  if (!reader.ok()) return reader.status();
  return invalid_argument(field + ": got " + got + ", want " + want);
}

Status read_boolean(JsonReader& reader, OwnerPath field, bool& out) {
  const auto kind = reader.peek();
  if (kind != JsonReader::Kind::kTrue && kind != JsonReader::Kind::kFalse) {
    return wrong_value(reader, field(), "true or false");
  }
  reader.read_bool(out);
  return reader.status();
}

Status read_integer(JsonReader& reader, OwnerPath field, std::int64_t low, std::int64_t high,
                    std::int64_t& out) {
  const auto want = [&] { return "an integer in " + std::to_string(low) + ".." + std::to_string(high); };
  if (reader.peek() != JsonReader::Kind::kNumber) return wrong_value(reader, field(), want());
  JsonNumber number;
  if (!reader.read_number(number)) return reader.status();
  const auto value = number.as_int64();
  if (!value || *value < low || *value > high) {
    return invalid_argument(field() + ": got " + std::string(number.text) + ", want " + want());
  }
  out = *value;
  return Status::ok();
}

Status read_number_value(JsonReader& reader, OwnerPath field, Parameter& out) {
  JsonNumber number;
  if (!reader.read_number(number)) return reader.status();
  if (const auto i = number.as_int64()) {
    out.value = *i;
  } else if (const auto u = number.as_uint64()) {
    out.value = *u;
  } else if (const auto d = number.integral ? std::nullopt : number.as_double()) {
    out.value = *d;
  } else {
    return invalid_argument(field() + ": got " + std::string(number.text) +
                            ", want a number that 64 bits hold");
  }
  return Status::ok();
}

Status read_value(JsonReader& reader, OwnerPath field, Scratch& scratch, Parameter& out) {
  switch (reader.peek()) {
    case JsonReader::Kind::kTrue:
    case JsonReader::Kind::kFalse:
      return read_boolean(reader, field, out.value.emplace<bool>());
    case JsonReader::Kind::kNumber:
      return read_number_value(reader, field, out);
    case JsonReader::Kind::kString: {
      JsonString text;
      if (reader.read_string(text)) out.value = JsonReader::decode(text, scratch);
      return reader.status();
    }
    default:
      return wrong_value(reader, field(), "a boolean, a number or a string");
  }
}

Status read_request_parameter(JsonReader& reader, std::string_view name, Request& out) {
  const auto field = [&] { return parameter_field("", name); };
  std::int64_t number = 0;
  if (name == "priority") {
    FS_RETURN_IF_ERROR(read_integer(reader, field, 0, std::numeric_limits<std::uint32_t>::max(), number));
    out.priority = static_cast<std::uint32_t>(number);
    return Status::ok();
  }
  if (name == "timeout") {
    FS_RETURN_IF_ERROR(read_integer(reader, field, 0, kNever / kMicrosecond, number));
    out.queue_timeout_ns = number * kMicrosecond;
    return Status::ok();
  }
  if (name.starts_with(kReservedPrefix) && name != "triton_enable_empty_final_response") {
    return invalid_argument(field() + ": parameter keys starting with 'triton_' are reserved");
  }
  if (out.parameters.size() == kRestParameters) {
    return invalid_argument("parameters: got more than " + std::to_string(kRestParameters) + ", want " +
                            std::to_string(kRestParameters) + " or fewer");
  }
  Parameter& parameter = out.parameters.emplace_back();
  parameter.name = name;
  FS_RETURN_IF_ERROR(read_value(reader, field, out.scratch, parameter));
  if (name == "binary_data_output" && !std::holds_alternative<bool>(parameter.value)) {
    return invalid_argument(field() + ": got another type, want true or false");
  }
  return Status::ok();
}

// Walks an object; `read(key)` reads one value or skips it.
template <class Read>
Status each_parameter(JsonReader& reader, OwnerPath owner, Read read) {
  if (reader.peek() != JsonReader::Kind::kObject) {
    const std::string path = owner();
    return wrong_value(reader, path + (path.empty() ? "parameters" : ".parameters"), "an object");
  }
  reader.enter_object();
  for (JsonString key; reader.next_key(key);) FS_RETURN_IF_ERROR(read(key));
  return reader.status();
}

Status read_shared_memory(JsonReader& reader, OwnerPath field, std::string_view name, Scratch& scratch,
                          SharedPlaceDraft& out) {
  if (name == kSharedRegion) {
    if (out.region) return duplicate_key(field());
    if (reader.peek() != JsonReader::Kind::kString) return wrong_value(reader, field(), "a string");
    JsonString text;
    if (reader.read_string(text)) out.region = JsonReader::decode(text, scratch);
    return reader.status();
  }
  if (name != kSharedBytes && name != kSharedOffset) {
    return invalid_argument(field() + ": unknown, want shared_memory_region, _byte_size or _offset");
  }
  std::optional<std::uint64_t>& number = name == kSharedBytes ? out.bytes : out.offset;
  if (number) return duplicate_key(field());
  if (reader.peek() != JsonReader::Kind::kNumber) {
    return wrong_value(reader, field(), "a whole number of 0 or more bytes");
  }
  JsonNumber value;
  if (!reader.read_number(value)) return reader.status();
  number = value.as_uint64();
  if (number) return Status::ok();
  return invalid_argument(field() + ": got " + std::string(value.text) +
                          ", want a whole number of 0 or more bytes");
}

bool has_parameter(const Request& request, std::string_view name) {
  return std::ranges::any_of(request.parameters, [&](const Parameter& p) { return p.name == name; });
}

}  // namespace

Status read_request_parameters(JsonReader& reader, Request& out) {
  bool priority = false;
  bool timeout = false;
  return each_parameter(
      reader, [] { return std::string(); },
      [&](const JsonString& key) {
        const std::string_view name = JsonReader::decode(key, out.scratch);
        const bool again = name == "priority"  ? std::exchange(priority, true)
                           : name == "timeout" ? std::exchange(timeout, true)
                                               : has_parameter(out, name);
        return again ? duplicate_key(parameter_field("", name)) : read_request_parameter(reader, name, out);
      });
}

Status read_input_parameters(JsonReader& reader, OwnerPath owner, Scratch& scratch,
                             RestInputParameters& out) {
  return each_parameter(reader, owner, [&](const JsonString& key) {
    const auto field = [&] { return parameter_field(owner(), key.raw); };
    if (key.raw.starts_with(kSharedPrefix)) {
      return read_shared_memory(reader, field, key.raw, scratch, out.shared);
    }
    if (key.raw != "binary_data_size") {
      reader.skip_value();
      return reader.status();
    }
    if (out.binary_data_size) return duplicate_key(field());
    return read_integer(reader, field, 0, std::numeric_limits<std::int64_t>::max(),
                        out.binary_data_size.emplace(0));
  });
}

Status read_output_parameters(JsonReader& reader, OwnerPath owner, Scratch& scratch,
                              RestOutputParameters& out) {
  bool classified = false;
  return each_parameter(reader, owner, [&](const JsonString& key) {
    const auto field = [&] { return parameter_field(owner(), key.raw); };
    if (key.raw.starts_with(kSharedPrefix)) {
      return read_shared_memory(reader, field, key.raw, scratch, out.shared);
    }
    if (key.raw == "binary_data") {
      if (out.binary_data) return duplicate_key(field());
      return read_boolean(reader, field, out.binary_data.emplace(false));
    }
    if (key.raw == "classification") {
      if (std::exchange(classified, true)) return duplicate_key(field());
      return read_integer(reader, field, 1, std::numeric_limits<std::int32_t>::max(), out.classification);
    }
    reader.skip_value();
    return reader.status();
  });
}

bool wants_binary_output(const Request& request) {
  for (const Parameter& parameter : request.parameters) {
    if (parameter.name != "binary_data_output") continue;
    const bool* value = std::get_if<bool>(&parameter.value);
    return value != nullptr && *value;
  }
  return false;
}

}  // namespace fastserve
