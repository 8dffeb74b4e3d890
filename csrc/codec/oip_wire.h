// Small pieces that the ModelInfer decoder and encoder share: where in the message the walk is, and protobuf wire types.
// One thread per object.
#pragma once

#include <protozero/pbf_reader.hpp>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace fastserve {

// The field that is being read, for error texts: `inputs[2].shape[1]`. Setting it costs a few stores.
struct FieldPath {
  static constexpr std::size_t kNone = ~std::size_t{0};
  const char* list = nullptr;  // "inputs", "outputs" or nullptr at the top
  std::size_t item = kNone;
  const char* field = nullptr;
  std::size_t index = kNone;

  void at(const char* name, std::size_t i = kNone) { field = name, index = i; }
  void enter(const char* name, std::size_t i) { list = name, item = i, field = nullptr, index = kNone; }
  void leave() { *this = {}; }
  std::string str() const;
};

// What errors repeat of a client's text: at most 128 bytes, control characters as '?'.
std::string echo(std::string_view text);

inline Status bad_field(const FieldPath& path, std::string_view problem) {
  return invalid_argument(path.str() + ": " + std::string(problem));
}

inline std::string_view text_of(const protozero::data_view& view) { return {view.data(), view.size()}; }
inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// INVALID_ARGUMENT unless the current field has wire type `want`. protozero itself only asserts.
Status expect_type(const protozero::pbf_reader& reader, protozero::pbf_wire_type want, const FieldPath& path);

#define FS_EXPECT_TYPE(reader, want, path) \
  if ((reader).wire_type() != (want)) return expect_type(reader, want, path)

}  // namespace fastserve
