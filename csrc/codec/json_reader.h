// A strict pull reader of JSON text (RFC 8259) in memory: one pass, no copy, no index, no DOM, so that its memory does not
// grow with the text. The caller asks for what it expects; the first error sticks and ends every loop.
//
// Why not simdjson's On Demand: it keeps 5.7 bytes of index and string memory per byte of text (363 MiB for a
// 64 MiB body), does not check what it skips, and gains little on dense numbers, whose index has an entry for every
// few bytes: [1,3,224,224] FP32 costs 3.8 ms here and 3.0 there (1.4 MB), 5.0 and 4.3 (2.9 MB), medians of three
// runs of benchmarks/micro/rest_bench on a busy machine; there without range checks and the tensor's memory.
// simdjson checks the UTF-8, fast_float rounds what the exact short way cannot.
//
// Usage:  if (r.enter_object()) while (r.next_key(key)) { ... one value must be read or skipped ... }
// Thread: one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "codec/json_number.h"
#include "memory/scratch.h"

namespace fastserve {

// A string as it stands in the text, without quotes; decode with JsonReader::decode when it has escapes.
struct JsonString {
  std::string_view raw;
  bool escaped = false;
};

struct JsonLimits {
  int depth = 32;                 // nested containers
  int keys = 1000;                // in the whole text
  std::size_t number_chars = 64;  // of one number
};

class JsonReader {
 public:
  enum class Kind : std::uint8_t { kObject, kArray, kString, kNumber, kTrue, kFalse, kNull, kInvalid };

  // `text` is borrowed. Fails at once on a byte order mark and on bytes that are not UTF-8.
  explicit JsonReader(std::string_view text, const JsonLimits& limits = {});

  Kind peek();  // of the value at the cursor; kInvalid at anything else, the end too
  bool enter_object();
  bool next_key(JsonString& key);  // false: the object is closed, or an error
  bool enter_array();
  bool next_element() { return next(']'); }  // false: the array is closed, or an error
  bool read_string(JsonString& out);
  // A number may stand at the cursor: the quick form of peek() == kNumber.
  bool at_number() {
    skip_blanks();
    return at_ != end_ && (*at_ == '-' || json_digits::is_digit(*at_));
  }
  bool read_number(JsonNumber& out) {
    skip_blanks();
    const char* bad = nullptr;
    const char* what = nullptr;
    const char* const behind = json_digits::scan(at_, end_, out, bad, what);
    if (behind == nullptr) return fail_at(static_cast<std::size_t>(bad - begin_), what);
    if (out.text.size() > limits_.number_chars) return fail_number();
    at_ = behind;
    return true;
  }
  // The quick form of next_element() and read_number() in turn: up to `most` numbers with a comma in front of each but the
  // container's first, while `take(number)` is true. Returns how many; the cursor is behind the last, and whatever stands
  // there (the end, an error, blanks before a comma) is next_element's to see.
  template <class Take>
  std::int64_t read_numbers(std::int64_t most, Take take);
  bool read_bool(bool& out);
  void skip_value();  // checks what it skips
  void finish();      // only blanks may follow

  // Unescaped: views the text, or a copy in `scratch`. Escapes were checked when the string was read.
  static std::string_view decode(const JsonString& string, Scratch& scratch);
  // Writes the unescaped bytes to `to` (room for raw.size()); returns how many.
  static std::size_t decode_to(const JsonString& string, char* to);

  bool ok() const { return error_.empty(); }
  // An error at the cursor (or at `offset`); the first one sticks. Returns false.
  bool fail(std::string_view what) { return fail_at(position(), what); }
  bool fail_at(std::size_t offset, std::string_view what);
  // "failed to parse the request JSON buffer: <what> at byte 17 (line 2, column 5)"; OK when there was no error.
  Status status() const;

  std::size_t position() const { return static_cast<std::size_t>(at_ - begin_); }
  std::size_t remaining() const { return static_cast<std::size_t>(end_ - at_); }
  // Back to the start of a value that was read or skipped; outside of every container that was entered since, or after
  // leave() for each of them.
  void rewind(std::size_t position) {
    if (ok()) at_ = begin_ + position;
  }
  void leave() { --depth_; }

 private:
  void skip_blanks() {
    while (at_ != end_ && static_cast<unsigned char>(*at_) <= ' ' &&
           (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) {
      ++at_;
    }
  }
  bool scan_string(JsonString& out);
  bool scan_escape();
  bool scan_code_unit(std::uint32_t& out);
  bool read_word(std::string_view word);
  bool enter(char open);
  bool next(char close) {  // consumes a comma or the closing bracket
    skip_blanks();
    if (at_ != end_ && *at_ == ',' && !fresh_) {
      ++at_;
      skip_blanks();
      return at_ != end_ || fail("the text ends too early");
    }
    return next_slowly(close);
  }
  bool next_slowly(char close);
  bool fail_number();

  const char* begin_;
  const char* at_;
  const char* end_;
  JsonLimits limits_;
  int depth_ = 0;
  int keys_ = 0;
  bool fresh_ = true;  // nothing was read yet in the innermost container
  std::string error_;
  std::size_t error_at_ = 0;
};

// With the cursor in a register: through the member it would go through memory four times per number.
template <class Take>
std::int64_t JsonReader::read_numbers(std::int64_t most, Take take) {
  const char* at = at_;
  const char* const end = end_;
  bool fresh = fresh_;
  std::int64_t count = 0;
  for (const char* p = at; count < most; ++count) {
    if (!fresh) {
      if (p == end || *p != ',') break;
      ++p;
    }
    while (p != end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) ++p;
    JsonNumber number;
    const char* bad = nullptr;
    const char* what = nullptr;
    p = json_digits::scan(p, end, number, bad, what);
    if (p == nullptr || number.text.size() > limits_.number_chars || !take(number)) break;
    at = p;
    fresh = false;
  }
  at_ = at;
  fresh_ = fresh;
  return count;
}

}  // namespace fastserve
