#include "codec/oip_wire.h"

namespace fastserve {

std::string FieldPath::str() const {
  std::string out;
  if (list != nullptr) {
    out = list;
    if (item != kNone) out += "[" + std::to_string(item) + "]";
  }
  if (field != nullptr) {
    if (!out.empty()) out += '.';
    out += field;
    if (index != kNone) out += "[" + std::to_string(index) + "]";
  }
  return out.empty() ? "ModelInferRequest" : out;
}

std::string echo(std::string_view text) {
  constexpr std::size_t kEchoBytes = 128;
  std::string out(text.substr(0, kEchoBytes));
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  if (text.size() > kEchoBytes) out += "...";
  return out;
}

Status expect_type(const protozero::pbf_reader& reader, protozero::pbf_wire_type want,
                   const FieldPath& path) {
  return bad_field(path, "got protobuf wire type " +
                             std::to_string(static_cast<unsigned>(reader.wire_type())) + ", want " +
                             std::to_string(static_cast<unsigned>(want)));
}

}  // namespace fastserve
