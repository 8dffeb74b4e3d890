// Writes JSON (RFC 8259) into a ByteBuffer, compact, in one pass: the caller gives keys and values in order, the writer sets
// the commas. It does not check the nesting. Text is expected to be UTF-8; `is_utf8` says so where it may not be.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "memory/byte_buffer.h"
#include "tensor/tensor.h"

namespace fastserve {

class JsonWriter {
 public:
  explicit JsonWriter(ByteBuffer& out) : out_(out) {}

  void begin_object() { open('{'); }
  void end_object() { close('}'); }
  void begin_array() { open('['); }
  void end_array() { close(']'); }
  void key(std::string_view name);
  void string(std::string_view text);  // quoted, escaped
  void boolean(bool value);
  void integer(std::int64_t value);
  void unsigned_integer(std::uint64_t value);
  // The shortest text that reads back as the same double (float). NaN, Infinity and -Infinity are written as these words:
  // not RFC 8259, but what Triton and TF Serving write and Python's json and tritonclient read.
  void number(double value);
  void number(float value);
  void null();
  // The elements of a fixed-size tensor as one flat array. `dtype` is not FP16, BF16 or BYTES.
  void elements(DType dtype, std::span<const std::byte> data);

 private:
  void open(char c);
  void close(char c);
  void separate();  // a comma unless first in its container
  template <class T>
  void append_number(T value);
  template <class T>
  void append_elements(std::span<const std::byte> data);

  ByteBuffer& out_;
  bool first_ = true;
};

// Appends `text` as a quoted JSON string. Control characters, '"' and '\' are escaped; other bytes are copied.
void append_json_string(ByteBuffer& out, std::string_view text);

bool is_utf8(std::string_view text);

// `{"error":"..."}`: always valid JSON (bytes that are no UTF-8 become '?'), at most 1024 bytes (a longer message is cut).
std::string error_body(std::string_view message);

}  // namespace fastserve
