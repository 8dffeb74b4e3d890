#include "codec/json_reader.h"

#include <simdjson.h>

#include <algorithm>
#include <cstring>

namespace fastserve {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// Where the first malformed sequence starts (RFC 3629). Only for the message: simdjson has said that there is one.
std::size_t first_bad_utf8(std::string_view text) {
  // The longest valid prefix, by bisection on a predicate that is monotonic up to the 3 bytes of a cut sequence.
  std::size_t low = 0;
  std::size_t high = text.size();
  while (high - low > 64) {
    std::size_t middle = low + (high - low) / 2;
    while (middle > low && (static_cast<unsigned char>(text[middle]) & 0xC0) == 0x80) --middle;
    if (middle == low) break;  // more than 64 continuation bytes in a row
    if (simdjson::validate_utf8(text.data() + low, middle - low)) {
      low = middle;
    } else {
      high = middle;
    }
  }
  while (low < high) {
    std::size_t width = 1;
    while (width <= 4 && low + width <= high && !simdjson::validate_utf8(text.data() + low, width)) ++width;
    if (width > 4 || low + width > high) break;
    low += width;
  }
  return low;
}

char* put_code_point(std::uint32_t c, char* to) {
  const auto put = [&](std::uint32_t byte) { *to++ = static_cast<char>(byte); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | (c >> 6));
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | (c >> 12));
    put(0x80 | ((c >> 6) & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | (c >> 18));
    put(0x80 | ((c >> 12) & 0x3F));
    put(0x80 | ((c >> 6) & 0x3F));
    put(0x80 | (c & 0x3F));
  }
  return to;
}

std::uint32_t code_unit(const char* hex) {
  std::uint32_t unit = 0;
  for (int i = 0; i < 4; ++i) unit = unit * 16 + static_cast<std::uint32_t>(hex_digit(hex[i]));
  return unit;
}

char unescaped(char c) {
  switch (c) {
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    default:
      return c;
  }
}

bool is_high_surrogate(std::uint32_t unit) { return unit >= 0xD800 && unit < 0xDC00; }
bool is_low_surrogate(std::uint32_t unit) { return unit >= 0xDC00 && unit < 0xE000; }

}  // namespace

JsonReader::JsonReader(std::string_view text, const JsonLimits& limits)
    : begin_(text.data()), at_(text.data()), end_(text.data() + text.size()), limits_(limits) {
  if (text.starts_with(kByteOrderMark)) {
    fail("a byte order mark");
  } else if (!simdjson::validate_utf8(text.data(), text.size())) {
    fail_at(first_bad_utf8(text), "invalid UTF-8");
  }
}

bool JsonReader::fail_at(std::size_t offset, std::string_view what) {
  if (error_.empty()) {
    error_ = what;
    error_at_ = offset;
  }
  at_ = end_;  // every further read finds the end and fails too
  return false;
}

Status JsonReader::status() const {
  if (ok()) return Status::ok();
  const std::string_view before(begin_, error_at_);
  const auto lines = std::count(before.begin(), before.end(), '\n');
  const std::size_t line_start = before.rfind('\n') + 1;  // npos + 1 = 0
  return invalid_argument("failed to parse the request JSON buffer: " + error_ + " at byte " +
                          std::to_string(error_at_) + " (line " + std::to_string(lines + 1) + ", column " +
                          std::to_string(error_at_ - line_start + 1) + ")");
}

JsonReader::Kind JsonReader::peek() {
  skip_blanks();
  if (at_ == end_) return Kind::kInvalid;
  switch (*at_) {
    case '{':
      return Kind::kObject;
    case '[':
      return Kind::kArray;
    case '"':
      return Kind::kString;
    case 't':
      return Kind::kTrue;
    case 'f':
      return Kind::kFalse;
    case 'n':
      return Kind::kNull;
    case '-':
      return Kind::kNumber;
    default:
      return json_digits::is_digit(*at_) ? Kind::kNumber : Kind::kInvalid;
  }
}

bool JsonReader::enter(char open) {
  skip_blanks();
  if (at_ == end_ || *at_ != open) return fail(open == '{' ? "expected an object" : "expected an array");
  if (++depth_ > limits_.depth) return fail("nested deeper than " + std::to_string(limits_.depth));
  ++at_;
  fresh_ = true;
  return true;
}

// At the first element, at the end, and at what should not be there.
bool JsonReader::next_slowly(char close) {
  if (at_ != end_ && *at_ == close) {
    ++at_;
    --depth_;
    fresh_ = false;
    return false;
  }
  if (at_ == end_) return fail("the text ends too early");
  if (!fresh_) return fail(close == '}' ? "expected ',' or '}'" : "expected ',' or ']'");
  fresh_ = false;
  return true;
}

bool JsonReader::fail_number() {
  return fail("a number longer than " + std::to_string(limits_.number_chars) + " characters");
}

bool JsonReader::enter_object() { return enter('{'); }
bool JsonReader::enter_array() { return enter('['); }

bool JsonReader::next_key(JsonString& key) {
  if (!next('}')) return false;
  if (*at_ != '"') return fail("expected a key in double quotes");
  if (++keys_ > limits_.keys) return fail("more than " + std::to_string(limits_.keys) + " keys");
  if (!scan_string(key)) return false;
  skip_blanks();
  if (at_ == end_ || *at_ != ':') return fail("expected ':'");
  ++at_;
  return true;
}

bool JsonReader::read_string(JsonString& out) {
  skip_blanks();
  if (at_ == end_ || *at_ != '"') return fail("expected a string");
  return scan_string(out);
}

bool JsonReader::scan_string(JsonString& out) {
  const char* const start = ++at_;
  out.escaped = false;
  while (at_ != end_) {
    const char c = *at_;
    if (c == '"') {
      out.raw = {start, static_cast<std::size_t>(at_ - start)};
      ++at_;
      return true;
    }
    if (static_cast<unsigned char>(c) < 0x20) return fail("a control character inside a string");
    ++at_;
    if (c != '\\') continue;
    out.escaped = true;
    if (!scan_escape()) return false;
  }
  return fail("a string without an end");
}

// Behind the backslash.
bool JsonReader::scan_escape() {
  if (at_ == end_) return fail("a string without an end");
  const char c = *at_++;
  if (c != 'u')
    return std::strchr("\"\\/bfnrt", c) != nullptr && c != '\0' ? true : fail("an unknown escape");
  std::uint32_t unit = 0;
  if (!scan_code_unit(unit)) return false;
  if (is_low_surrogate(unit)) return fail("a low surrogate without a high one");
  if (!is_high_surrogate(unit)) return true;
  if (remaining() < 2 || at_[0] != '\\' || at_[1] != 'u') return fail("a high surrogate without a low one");
  at_ += 2;
  if (!scan_code_unit(unit)) return false;
  return is_low_surrogate(unit) ? true : fail("a high surrogate without a low one");
}

bool JsonReader::scan_code_unit(std::uint32_t& out) {
  if (remaining() < 4 || std::any_of(at_, at_ + 4, [](char c) { return hex_digit(c) < 0; })) {
    return fail("\\u needs four hexadecimal digits");
  }
  out = code_unit(at_);
  at_ += 4;
  return true;
}

std::size_t JsonReader::decode_to(const JsonString& string, char* to) {
  if (!string.escaped) {
    if (!string.raw.empty()) std::memcpy(to, string.raw.data(), string.raw.size());
    return string.raw.size();
  }
  char* const start = to;
  for (const char *p = string.raw.data(), *end = p + string.raw.size(); p != end;) {
    if (*p != '\\') {
      *to++ = *p++;
    } else if (p[1] != 'u') {
      *to++ = unescaped(p[1]);
      p += 2;
    } else {
      std::uint32_t point = code_unit(p + 2);
      p += 6;
      if (is_high_surrogate(point)) {
        point = 0x10000 + ((point - 0xD800) << 10) + (code_unit(p + 2) - 0xDC00);
        p += 6;
      }
      to = put_code_point(point, to);
    }
  }
  return static_cast<std::size_t>(to - start);
}

std::string_view JsonReader::decode(const JsonString& string, Scratch& scratch) {
  if (!string.escaped) return string.raw;
  char* const to = reinterpret_cast<char*>(scratch.allocate(string.raw.size()).data());
  return {to, decode_to(string, to)};
}

bool JsonReader::read_word(std::string_view word) {
  if (!std::string_view(at_, remaining()).starts_with(word)) return fail("expected a value");
  at_ += word.size();
  return true;
}

bool JsonReader::read_bool(bool& out) {
  const Kind kind = peek();
  if (kind != Kind::kTrue && kind != Kind::kFalse) return fail("expected true or false");
  out = kind == Kind::kTrue;
  return read_word(out ? "true" : "false");
}

// Recursion is bounded by limits_.depth.
void JsonReader::skip_value() {
  JsonString string;
  JsonNumber number;
  switch (peek()) {
    case Kind::kObject:
      if (!enter_object()) return;
      while (next_key(string)) skip_value();
      return;
    case Kind::kArray:
      if (!enter_array()) return;
      while (next_element()) skip_value();
      return;
    case Kind::kString:
      scan_string(string);
      return;
    case Kind::kNumber:
      read_number(number);
      return;
    case Kind::kTrue:
      read_word("true");
      return;
    case Kind::kFalse:
      read_word("false");
      return;
    case Kind::kNull:
      read_word("null");
      return;
    case Kind::kInvalid:
      fail(at_ == end_ ? "the text ends too early" : "expected a value");
      return;
  }
}

void JsonReader::finish() {
  skip_blanks();
  if (ok() && at_ != end_) fail("unexpected text behind the end of the document");
}

}  // namespace fastserve
