#include "codec/http1_parser.h"

#include <algorithm>
#include <utility>

namespace fastserve {
namespace {

constexpr std::size_t kFirstBytes = 32;
constexpr std::size_t kHeaderOverhead = 4;        // ": " and CRLF
constexpr std::size_t kLineOverhead = 1 + 1 + 8;  // two blanks and "HTTP/1.1"
constexpr std::size_t kKeepTextBytes = 64 * 1024;

std::string_view trim(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// "FOO " looks like a request with a method that nobody knows; a TLS hello or an HTTP/2 frame does not.
bool looks_like_method(std::string_view bytes) {
  const std::size_t start = bytes.find_first_not_of("\r\n");
  if (start == std::string_view::npos) return false;
  const std::string_view word = bytes.substr(start, bytes.find(' ', start) - start);
  return !word.empty() &&
         std::ranges::all_of(word, [](char c) { return (c >= 'A' && c <= 'Z') || c == '-' || c == '_'; });
}

}  // namespace

bool equals_lower(std::string_view text, std::string_view lower) {
  if (text.size() != lower.size()) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if ((c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c) != lower[i]) return false;
  }
  return true;
}

std::optional<std::string_view> Http1Head::header(std::string_view name) const {
  for (const Http1Header& h : headers) {
    if (equals_lower(h.name, name)) return h.value;
  }
  return std::nullopt;
}

const llhttp_settings_t& Http1Parser::settings() {
  static const llhttp_settings_t table = [] {
    llhttp_settings_t s;
    llhttp_settings_init(&s);
    s.on_url = [](llhttp_t* p, const char* at, std::size_t n) { return self(p).on_target({at, n}); };
    s.on_header_field = [](llhttp_t* p, const char* at, std::size_t n) {
      return self(p).on_header_name({at, n});
    };
    s.on_header_value = [](llhttp_t* p, const char* at, std::size_t n) {
      return self(p).on_header_value({at, n});
    };
    s.on_header_value_complete = [](llhttp_t* p) { return self(p).on_header_complete(); };
    s.on_headers_complete = [](llhttp_t* p) { return self(p).on_headers_complete(); };
    s.on_body = [](llhttp_t* p, const char* at, std::size_t n) { return self(p).on_body({at, n}); };
    s.on_chunk_header = [](llhttp_t* p) { return self(p).on_chunk_header(); };
    const auto extension = [](llhttp_t* p, const char*, std::size_t n) {
      return self(p).on_chunk_extension(n);
    };
    s.on_chunk_extension_name = extension;
    s.on_chunk_extension_value = extension;
    s.on_message_complete = [](llhttp_t*) -> int { return HPE_PAUSED; };
    return s;
  }();
  return table;
}

Http1Parser::Http1Parser(Http1ParserEvents& events, const Http1Limits& limits)
    : events_(events), limits_(limits) {
  llhttp_init(&parser_, HTTP_REQUEST, &settings());
  parser_.data = this;
}

void Http1Parser::start_message() {
  text_.clear();
  text_.shrink(kKeepTextBytes);
  fields_.clear();
  first_bytes_.clear();
  target_bytes_ = header_count_ = header_bytes_ = chunks_ = chunk_extension_bytes_ = body_bytes_ = 0;
  value_open_ = false;
  started_ = true;
}

Http1Parser::Step Http1Parser::parse(std::span<const std::byte>& input) {
  if (std::exchange(paused_, false)) llhttp_resume(&parser_);
  if (input.empty()) return Step::kMore;
  if (!started_) start_message();
  const char* const begin = reinterpret_cast<const char*>(input.data());
  gap_from_ = begin;
  if (first_bytes_.size() < kFirstBytes) {
    first_bytes_.append(begin, std::min(input.size(), kFirstBytes - first_bytes_.size()));
  }
  const llhttp_errno_t error = llhttp_execute(&parser_, begin, input.size());
  if (error == HPE_OK) {
    if (value_open_) note_gap(begin + input.size());
    input = {};
    return Step::kMore;
  }
  if (error == HPE_PAUSED) {
    input = input.subspan(static_cast<std::size_t>(llhttp_get_error_pos(&parser_) - begin));
    paused_ = true;
    started_ = false;
    return Step::kMessageEnd;
  }
  if (stopped_) return Step::kStopped;
  if (error_status_ == 0) explain(error);
  return Step::kError;
}

int Http1Parser::refuse(int status, std::string reason) {
  error_status_ = status;
  error_reason_ = std::move(reason);
  return HPE_USER;
}

void Http1Parser::explain(llhttp_errno_t error) {
  const char* const reason = llhttp_get_error_reason(&parser_);
  error_reason_ = "malformed HTTP request: ";
  switch (error) {
    case HPE_INVALID_METHOD:
      error_status_ = looks_like_method(first_bytes_) ? 501 : 400;
      if (error_status_ == 501) error_reason_ = "method not implemented";
      break;
    case HPE_INVALID_VERSION:
    case HPE_PAUSED_H2_UPGRADE:
      error_status_ = 505;
      break;
    case HPE_INVALID_TRANSFER_ENCODING:
      error_status_ = 501;
      break;
    default:
      error_status_ = 400;
  }
  if (error_status_ == 505) {
    error_reason_ = "HTTP version not supported, want 1.1";
  } else if (error_status_ != 501 || error != HPE_INVALID_METHOD) {
    error_reason_ += reason != nullptr && *reason != '\0' ? reason : llhttp_errno_name(error);
  }
}

int Http1Parser::on_target(std::string_view piece) {
  target_bytes_ += piece.size();
  const std::string_view method = llhttp_method_name(static_cast<llhttp_method_t>(parser_.method));
  if (method.size() + target_bytes_ + kLineOverhead > limits_.line_bytes) {
    return refuse(414, "request line longer than " + std::to_string(limits_.line_bytes) + " bytes");
  }
  text_.append(piece);
  return 0;
}

int Http1Parser::count_header_bytes(std::size_t bytes) {
  header_bytes_ += bytes;
  if (header_bytes_ <= limits_.header_bytes) return 0;
  return refuse(431, "headers larger than " + std::to_string(limits_.header_bytes) + " bytes");
}

int Http1Parser::on_header_name(std::string_view piece) {
  if (!value_open_) {  // the first piece of a name
    value_open_ = true;
    gap_has_newline_ = false;
    if (++header_count_ > limits_.headers) {
      return refuse(431, "more than " + std::to_string(limits_.headers) + " headers");
    }
    if (const int stop = count_header_bytes(kHeaderOverhead); stop != 0) return stop;
    if (!trailing()) fields_.push_back({text_.size(), 0, 0});
  }
  if (const int stop = count_header_bytes(piece.size()); stop != 0) return stop;
  gap_from_ = piece.data() + piece.size();
  if (trailing()) return 0;
  text_.append(piece);
  fields_.back().name_bytes += piece.size();
  return 0;
}

// Between a header's name and its value, and between two pieces of a value, there is no line break.
void Http1Parser::note_gap(const char* end) {
  gap_has_newline_ =
      gap_has_newline_ || std::find_if(gap_from_, end, [](char c) { return c == '\n' || c == '\r'; }) != end;
}

int Http1Parser::on_header_value(std::string_view piece) {
  if (!value_open_) return refuse(400, "malformed HTTP request: header without a name");
  if (piece.empty()) return 0;  // an empty value is reported behind its line break
  note_gap(piece.data());
  if (gap_has_newline_) return refuse(400, "malformed HTTP request: folded header line");
  gap_from_ = piece.data() + piece.size();
  if (const int stop = count_header_bytes(piece.size()); stop != 0) return stop;
  if (trailing()) return 0;
  text_.append(piece);
  fields_.back().value_bytes += piece.size();
  return 0;
}

int Http1Parser::on_header_complete() {
  const bool named = std::exchange(value_open_, false) && (trailing() || fields_.back().name_bytes != 0);
  if (!named) return refuse(400, "malformed HTTP request: header without a name");
  return 0;
}

bool Http1Parser::split_target(Http1Head& head) const {
  std::string_view target = text_.view().substr(0, target_bytes_);
  if (const std::size_t scheme = target.find("://");
      !target.starts_with('/') && scheme != std::string_view::npos) {
    const std::size_t slash = target.find_first_of("/?#", scheme + 3);
    target = slash == std::string_view::npos || target[slash] != '/' ? "/" : target.substr(slash);
  }
  target = target.substr(0, target.find('#'));
  if (!target.starts_with('/') && !(target == "*" && parser_.method == HTTP_OPTIONS)) return false;
  const std::size_t mark = target.find('?');
  head.target = target;
  head.path = target.substr(0, mark);
  head.query = mark == std::string_view::npos ? std::string_view() : target.substr(mark + 1);
  return true;
}

int Http1Parser::on_headers_complete() {
  parser_.upgrade =
      0;  // no protocol to change to: Upgrade is ignored (RFC 9110 section 7.8), CONNECT refused below
  headers_.clear();
  for (const Field& f : fields_) {
    headers_.push_back({text_.view().substr(f.name_at, f.name_bytes),
                        trim(text_.view().substr(f.name_at + f.name_bytes, f.value_bytes))});
  }
  Http1Head head;
  if (const int stop = check_head(head); stop != 0) return stop;
  if (events_.on_head(head)) return 0;
  stopped_ = true;
  return HPE_USER;
}

int Http1Parser::check_head(Http1Head& head) {
  if (parser_.http_major != 1) return refuse(505, "HTTP version not supported, want 1.1");
  if (parser_.method == HTTP_CONNECT) return refuse(501, "method not implemented");
  head.method = llhttp_method_name(static_cast<llhttp_method_t>(parser_.method));
  if (!split_target(head)) return refuse(400, "malformed HTTP request: target is no path");
  head.headers = headers_;
  head.minor_version = parser_.http_minor == 0 ? 0 : 1;
  head.keep_alive = llhttp_should_keep_alive(&parser_) != 0;
  head.chunked = (parser_.flags & F_CHUNKED) != 0;
  if ((parser_.flags & F_CONTENT_LENGTH) != 0) head.content_length = parser_.content_length;
  return check_framing(head);
}

// RFC 9112 sections 3.2 and 6.1.
int Http1Parser::check_framing(const Http1Head& head) {
  int hosts = 0;
  int encodings = 0;
  bool chunked_only = true;
  for (const Http1Header& h : head.headers) {
    if (equals_lower(h.name, "host")) ++hosts;
    if (!equals_lower(h.name, "transfer-encoding")) continue;
    chunked_only = chunked_only && ++encodings == 1 && equals_lower(h.value, "chunked");
  }
  if (hosts > 1 || (hosts == 0 && head.minor_version == 1)) {
    return refuse(400, "malformed HTTP request: got " + std::to_string(hosts) + " Host headers, want 1");
  }
  if (encodings > 0 && head.content_length) {
    return refuse(400, "malformed HTTP request: both Content-Length and Transfer-Encoding");
  }
  if (encodings > 0 && head.minor_version == 0) {
    return refuse(400, "malformed HTTP request: Transfer-Encoding in HTTP/1.0");
  }
  if (!chunked_only) return refuse(501, "Transfer-Encoding not implemented, want chunked");
  if (head.content_length.value_or(0) > limits_.body_bytes) {
    return refuse(413, "request body of " + std::to_string(*head.content_length) + " bytes, want " +
                           std::to_string(limits_.body_bytes) + " or fewer");
  }
  return 0;
}

int Http1Parser::on_chunk_header() {
  if (parser_.content_length == 0) return 0;  // the last one
  if (++chunks_ > limits_.chunks)
    return refuse(413, "more than " + std::to_string(limits_.chunks) + " chunks");
  if (parser_.content_length > limits_.body_bytes - body_bytes_) {
    return refuse(413, "request body larger than " + std::to_string(limits_.body_bytes) + " bytes");
  }
  return 0;
}

int Http1Parser::on_chunk_extension(std::size_t bytes) {
  chunk_extension_bytes_ += bytes;
  if (chunk_extension_bytes_ <= limits_.chunk_extension_bytes) return 0;
  return refuse(400,
                "chunk extensions longer than " + std::to_string(limits_.chunk_extension_bytes) + " bytes");
}

int Http1Parser::on_body(std::string_view piece) {
  body_bytes_ += piece.size();
  events_.on_piece(std::as_bytes(std::span(piece.data(), piece.size())));
  return 0;
}

}  // namespace fastserve
