#include "codec/oip_parameters.h"

#include <bit>
#include <limits>
#include <optional>
#include <string>

#include "codec/oip_infer.h"

namespace fastserve {
namespace {

using protozero::pbf_wire_type;

Status wrong_kind(std::string_view name, std::string_view want) {  // Triton's words
  return invalid_argument("invalid value type for '" + echo(name) + "' parameter, expected " +
                          std::string(want));
}

Status field_of_kind(const std::string& field, std::string_view name, std::string_view want) {
  return invalid_argument(wrong_kind(name, want).message() + ". " + field + ": got another kind");
}

// The value of an integer parameter; an unsigned one above INT64_MAX saturates (every range below is smaller).
std::optional<std::int64_t> integer(const Parameter& p) {
  if (const auto* i = std::get_if<std::int64_t>(&p.value)) return *i;
  const auto* u = std::get_if<std::uint64_t>(&p.value);
  if (u == nullptr) return std::nullopt;
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  return static_cast<std::int64_t>(*u < kMax ? *u : kMax);
}

std::string quoted_parameter(std::string_view name) { return "parameters[\"" + echo(name) + "\"]"; }

// inference.InferParameter, a oneof: the last one wins.
Status read_value(std::string_view bytes, const FieldPath& path, Parameter& out, bool& set) {
  protozero::pbf_reader value(bytes.data(), bytes.size());
  while (value.next()) {
    switch (value.tag()) {
      case 1:
        FS_EXPECT_TYPE(value, pbf_wire_type::varint, path);
        out.value = value.get_uint64() != 0;
        break;
      case 2:
        FS_EXPECT_TYPE(value, pbf_wire_type::varint, path);
        out.value = value.get_int64();
        break;
      case 3:
        FS_EXPECT_TYPE(value, pbf_wire_type::length_delimited, path);
        out.value = text_of(value.get_view());
        break;
      case 4:
        FS_EXPECT_TYPE(value, pbf_wire_type::fixed64, path);
        out.value = std::bit_cast<double>(value.get_fixed64());
        break;
      case 5:
        FS_EXPECT_TYPE(value, pbf_wire_type::varint, path);
        out.value = value.get_uint64();
        break;
      default:
        value.skip();
        continue;
    }
    set = true;
  }
  return Status::ok();
}

Status set_priority(const Parameter& p, Request& out) {
  const auto value = integer(p);
  if (!value) return wrong_kind(p.name, "uint64_param or int64_param");
  if (*value < 0 || *value > std::numeric_limits<std::uint32_t>::max()) {
    return invalid_argument(quoted_parameter(p.name) + ": got " + std::to_string(*value) +
                            ", want 0 to 4294967295");
  }
  out.priority = static_cast<std::uint32_t>(*value);
  return Status::ok();
}

Status set_timeout(const Parameter& p, Request& out) {
  const auto value = integer(p);
  if (!value) return wrong_kind(p.name, "int64_param");
  if (*value < 0) {
    return invalid_argument(quoted_parameter(p.name) + ": got " + std::to_string(*value) +
                            ", want 0 or more microseconds");
  }
  if (__builtin_mul_overflow(*value, kMicrosecond, &out.queue_timeout_ns)) out.queue_timeout_ns = kNever;
  return Status::ok();
}

Status check_kind(const Parameter& p) {
  if (p.name == "sequence_id") {
    if (!integer(p) && !std::holds_alternative<std::string_view>(p.value)) {
      return wrong_kind(p.name, "int64_param or string_param");
    }
  } else if (p.name == "sequence_start" || p.name == "sequence_end" || p.name == "binary_data_output" ||
             p.name == "triton_enable_empty_final_response") {
    if (!std::holds_alternative<bool>(p.value)) return wrong_kind(p.name, "bool_param");
  } else if (p.name.starts_with("triton_")) {
    return invalid_argument(quoted_parameter(p.name) + ": names that start with 'triton_' are reserved");
  }
  return Status::ok();
}

}  // namespace

Status read_parameter(std::string_view entry, const FieldPath& path, Parameter& out) {
  bool set = false;
  protozero::pbf_reader pair(entry.data(), entry.size());
  while (pair.next()) {
    switch (pair.tag()) {
      case 1:
        FS_EXPECT_TYPE(pair, pbf_wire_type::length_delimited, path);
        out.name = text_of(pair.get_view());
        break;
      case 2:
        FS_EXPECT_TYPE(pair, pbf_wire_type::length_delimited, path);
        FS_RETURN_IF_ERROR(read_value(text_of(pair.get_view()), path, out, set));
        break;
      default:
        pair.skip();
    }
  }
  if (!set) return invalid_argument(path.str() + "[\"" + echo(out.name) + "\"]: got no value");
  return Status::ok();
}

Status set_request_parameter(const Parameter& parameter, Request& out) {
  if (parameter.name == "priority") return set_priority(parameter, out);
  if (parameter.name == "timeout") return set_timeout(parameter, out);
  FS_RETURN_IF_ERROR(check_kind(parameter));
  for (Parameter& p : out.parameters) {
    if (p.name == parameter.name) {
      p.value = parameter.value;
      return Status::ok();
    }
  }
  if (out.parameters.size() == kMaxParameters) {
    return invalid_argument("parameters: got more than " + std::to_string(kMaxParameters) + ", want " +
                            std::to_string(kMaxParameters) + " or fewer");
  }
  out.parameters.push_back(parameter);
  return Status::ok();
}

Status read_shared_memory(const Parameter& parameter, const FieldPath& path, SharedPlaceDraft& out) {
  if (!parameter.name.starts_with("shared_memory_")) return Status::ok();
  const auto field = [&] { return path.str() + "[\"" + echo(parameter.name) + "\"]"; };
  if (parameter.name == kSharedRegion) {
    const auto* region = std::get_if<std::string_view>(&parameter.value);
    if (region == nullptr) return field_of_kind(field(), parameter.name, "string_param");
    out.region = *region;
    return Status::ok();
  }
  if (parameter.name != kSharedBytes && parameter.name != kSharedOffset) {
    return invalid_argument(field() + ": unknown, want shared_memory_region, _byte_size or _offset");
  }
  std::optional<std::uint64_t>& number = parameter.name == kSharedBytes ? out.bytes : out.offset;
  if (const auto* unsigned_value = std::get_if<std::uint64_t>(&parameter.value)) {
    number = *unsigned_value;
    return Status::ok();
  }
  const auto* value = std::get_if<std::int64_t>(&parameter.value);
  if (value == nullptr) return field_of_kind(field(), parameter.name, "int64_param");
  if (*value < 0) {
    return invalid_argument(field() + ": got " + std::to_string(*value) + ", want 0 or more bytes");
  }
  number = static_cast<std::uint64_t>(*value);
  return Status::ok();
}

Status read_classification(const Parameter& parameter, const FieldPath& path, std::int64_t& out) {
  const auto* count = std::get_if<std::int64_t>(&parameter.value);
  if (count == nullptr) return wrong_kind(parameter.name, "int64_param");
  if (*count <= 0) {
    return invalid_argument(path.str() + "[\"classification\"]: got " + std::to_string(*count) +
                            ", want 1 or more");
  }
  out = *count;
  return Status::ok();
}

}  // namespace fastserve
