// ModelInferRequest bytes for tests, built field by field with protozero's writer (an encoder of its own).
#pragma once

#include <protozero/pbf_writer.hpp>

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fastserve::testing {

using protozero::pbf_writer;
using Fields = std::function<void(pbf_writer&)>;

inline std::string message(const Fields& fields) {
  std::string out;
  pbf_writer writer(out);
  fields(writer);
  return out;
}

inline void sub(pbf_writer& writer, protozero::pbf_tag_type tag, const Fields& fields) {
  writer.add_message(tag, message(fields));
}

// map<string, InferParameter> entry; `value` writes the oneof.
inline void parameter(pbf_writer& writer, protozero::pbf_tag_type tag, std::string_view key,
                      const Fields& value) {
  sub(writer, tag, [&](pbf_writer& entry) {
    entry.add_string(1, key.data(), key.size());
    sub(entry, 2, value);
  });
}

inline void shape(pbf_writer& writer, const std::vector<std::int64_t>& dims) {
  writer.add_packed_int64(3, dims.begin(), dims.end());
}

// An input without data.
inline void input(
    pbf_writer& writer, std::string_view name, std::string_view datatype,
    const std::vector<std::int64_t>& dims, const Fields& more = [](pbf_writer&) {}) {
  sub(writer, 5, [&](pbf_writer& in) {
    in.add_string(1, name.data(), name.size());
    in.add_string(2, datatype.data(), datatype.size());
    shape(in, dims);
    more(in);
  });
}

// The usual small request: model "m", id "7", one FP32 [1,4] input as raw bytes.
inline std::string small_request() {
  return message([](pbf_writer& w) {
    w.add_string(1, "m");
    w.add_string(3, "7");
    input(w, "x", "FP32", {1, 4});
    w.add_bytes(7, std::string(16, '\1'));
  });
}

inline std::span<const std::byte> span_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace fastserve::testing
