#include "codec/json_writer.h"

#include <simdjson.h>

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

namespace fastserve {
namespace {

constexpr std::size_t kNumberBytes = 32;  // the longest: "-2.2250738585072014e-308", 24
constexpr std::size_t kErrorBytes = 1024;

constexpr std::array<bool, 256> kEscaped = [] {
  std::array<bool, 256> table{};
  for (std::size_t c = 0; c < 0x20; ++c) table[c] = true;
  table['"'] = table['\\'] = table[0x7F] = true;
  return table;
}();

void append_escape(ByteBuffer& out, unsigned char c) {
  constexpr char kHex[] = "0123456789abcdef";
  switch (c) {
    case '"':
      out.append("\\\"");
      return;
    case '\\':
      out.append("\\\\");
      return;
    case '\b':
      out.append("\\b");
      return;
    case '\f':
      out.append("\\f");
      return;
    case '\n':
      out.append("\\n");
      return;
    case '\r':
      out.append("\\r");
      return;
    case '\t':
      out.append("\\t");
      return;
    default:
      break;
  }
  const char escape[] = {'\\', 'u', '0', '0', kHex[c >> 4], kHex[c & 15]};
  out.append(escape, sizeof(escape));
}

// Text of a number at `to` (kNumberBytes of room); returns behind it.
template <class T>
char* put_number(T value, char* to) {
  if constexpr (std::is_floating_point_v<T>) {
    if (!std::isfinite(value)) {
      const std::string_view word = std::isnan(value) ? "NaN" : value < 0 ? "-Infinity" : "Infinity";
      std::memcpy(to, word.data(), word.size());
      return to + word.size();
    }
  }
  return std::to_chars(to, to + kNumberBytes, value).ptr;
}

}  // namespace

void append_json_string(ByteBuffer& out, std::string_view text) {
  out.push_back('"');
  std::size_t done = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (!kEscaped[c]) continue;
    out.append(text.substr(done, i - done));
    append_escape(out, c);
    done = i + 1;
  }
  out.append(text.substr(done));
  out.push_back('"');
}

bool is_utf8(std::string_view text) { return simdjson::validate_utf8(text.data(), text.size()); }

std::string error_body(std::string_view message) {
  constexpr std::string_view kHead = "{\"error\":";
  std::string text;
  ByteBuffer quoted;
  // Escapes make the text longer by an amount that is known afterwards only: cut and try again, seldom twice.
  for (std::size_t keep = message.size();; keep = keep * 3 / 4) {
    keep = std::min(keep, kErrorBytes);
    while (keep < message.size() && keep > 0 && (static_cast<unsigned char>(message[keep]) & 0xC0) == 0x80)
      --keep;
    text.assign(message.substr(0, keep));
    if (!is_utf8(text)) {
      for (char& c : text) c = static_cast<unsigned char>(c) < 0x80 ? c : '?';
    }
    quoted.clear();
    append_json_string(quoted, text);
    if (kHead.size() + quoted.size() + 1 <= kErrorBytes) break;
  }
  return std::string(kHead) + std::string(quoted.view()) + "}";
}

void JsonWriter::open(char c) {
  separate();
  out_.push_back(c);
  first_ = true;
}

void JsonWriter::close(char c) {
  out_.push_back(c);
  first_ = false;
}

void JsonWriter::separate() {
  if (!first_) out_.push_back(',');
  first_ = false;
}

void JsonWriter::key(std::string_view name) {
  separate();
  append_json_string(out_, name);
  out_.push_back(':');
  first_ = true;  // no comma before the value
}

void JsonWriter::string(std::string_view text) {
  separate();
  append_json_string(out_, text);
}

void JsonWriter::boolean(bool value) {
  separate();
  out_.append(value ? "true" : "false");
}

void JsonWriter::null() {
  separate();
  out_.append("null");
}

template <class T>
void JsonWriter::append_number(T value) {
  separate();
  char text[kNumberBytes];
  out_.append(text, static_cast<std::size_t>(put_number(value, text) - text));
}

void JsonWriter::integer(std::int64_t value) { append_number(value); }
void JsonWriter::unsigned_integer(std::uint64_t value) { append_number(value); }
void JsonWriter::number(double value) { append_number(value); }
void JsonWriter::number(float value) { append_number(value); }

template <class T>
void JsonWriter::append_elements(std::span<const std::byte> data) {
  constexpr std::size_t kBlock = 64;  // numbers per growth of the buffer
  const std::size_t count = data.size() / sizeof(T);
  for (std::size_t i = 0; i < count;) {
    const std::size_t block = std::min(kBlock, count - i);
    const std::size_t before = out_.size();
    char* const start = reinterpret_cast<char*>(out_.extend(block * (kNumberBytes + 1)));
    char* to = start;
    for (const std::size_t stop = i + block; i < stop; ++i) {
      T value;
      std::memcpy(&value, data.data() + i * sizeof(T), sizeof(T));
      if (i != 0) *to++ = ',';
      to = put_number(value, to);
    }
    out_.truncate(before + static_cast<std::size_t>(to - start));
  }
}

void JsonWriter::elements(DType dtype, std::span<const std::byte> data) {
  begin_array();
  switch (dtype) {
    case DType::kBool:
      for (const std::byte b : data) boolean(b != std::byte{0});
      break;
    case DType::kUint8:
      append_elements<std::uint8_t>(data);
      break;
    case DType::kUint16:
      append_elements<std::uint16_t>(data);
      break;
    case DType::kUint32:
      append_elements<std::uint32_t>(data);
      break;
    case DType::kUint64:
      append_elements<std::uint64_t>(data);
      break;
    case DType::kInt8:
      append_elements<std::int8_t>(data);
      break;
    case DType::kInt16:
      append_elements<std::int16_t>(data);
      break;
    case DType::kInt32:
      append_elements<std::int32_t>(data);
      break;
    case DType::kInt64:
      append_elements<std::int64_t>(data);
      break;
    case DType::kFp32:
      append_elements<float>(data);
      break;
    case DType::kFp64:
      append_elements<double>(data);
      break;
    case DType::kFp16:
    case DType::kBf16:
    case DType::kBytes:
      break;  // the caller's to refuse
  }
  end_array();
}

}  // namespace fastserve
