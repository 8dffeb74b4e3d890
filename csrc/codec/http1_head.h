// What the HTTP/1.1 codec and the front end agree on: a request's head, a header, the limits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/clock.h"

namespace fastserve {

// Limits against hostile peers (S6). Each is inclusive: `limit` passes, `limit` + 1 is refused with the code named.
struct Http1Limits {
  std::size_t line_bytes = 8 * 1024;          // method SP target SP version, no CRLF: 414
  std::size_t header_bytes = 16 * 1024;       // sum of name + value + 4 (": " and CRLF), trailers too: 431
  std::size_t headers = 64;                   // trailers counted too: 431
  std::size_t body_bytes = 64 * 1024 * 1024;  // 413
  std::size_t chunks = 65'536;                // per request; one-byte chunks cost CPU, not memory: 413
  std::size_t chunk_extension_bytes = 256;    // per request, names and values: 400
  std::size_t held_bytes = 256 * 1024;        // pipelined input kept unparsed until wants_input() turns false
  // Answers that the client does not read: from this on no further request is looked at until it does.
  std::size_t write_high_water_bytes = 1024 * 1024;
  Nanos head_timeout_ns = 10 * kSecond;   // first byte of a request to the end of its head: 408
  Nanos body_timeout_ns = 30 * kSecond;   // between two pieces of a body: 408
  Nanos idle_timeout_ns = 120 * kSecond;  // between requests: closed without a word
};

struct Http1Header {
  std::string_view name;
  std::string_view value;
};

// The head of a request. All views are valid until on_request returns.
struct Http1Head {
  std::string_view method;  // "GET": upper case, one that llhttp knows (others get 501 from the session)
  std::string_view target;  // as sent (percent-encoded), absolute-form reduced to path and query, no fragment
  std::string_view path;    // starts with '/', or is "*" (OPTIONS only)
  std::string_view query;   // without '?'; empty when there is none
  std::span<const Http1Header> headers;         // in order, names as sent, values without surrounding blanks
  std::optional<std::uint64_t> content_length;  // nullopt: chunked or no body
  bool chunked = false;
  bool keep_alive = true;
  int minor_version = 1;  // HTTP/1.x

  // The first header of that name (any case), nullopt when there is none. `name` in lower case.
  std::optional<std::string_view> header(std::string_view name) const;
};

// Equal but for ASCII case; `lower` is in lower case.
bool equals_lower(std::string_view text, std::string_view lower);

}  // namespace fastserve
