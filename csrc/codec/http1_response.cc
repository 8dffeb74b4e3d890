#include "codec/http1_response.h"

#include <algorithm>
#include <charconv>
#include <optional>

namespace fastserve {
namespace {

constexpr std::size_t kKeepMessages = 4;
constexpr std::size_t kKeepBytes = 64 * 1024;

// RFC 9110 section 15. Others go without a phrase, which RFC 9112 allows.
std::string_view phrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 206:
      return "Partial Content";
    case 301:
      return "Moved Permanently";
    case 302:
      return "Found";
    case 303:
      return "See Other";
    case 304:
      return "Not Modified";
    case 307:
      return "Temporary Redirect";
    case 308:
      return "Permanent Redirect";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 411:
      return "Length Required";
    case 412:
      return "Precondition Failed";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 416:
      return "Range Not Satisfiable";
    case 417:
      return "Expectation Failed";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "";
  }
}

// What would end the header, or the head, becomes a blank.
void append_clean(ByteBuffer& out, std::string_view text) {
  const std::size_t before = out.size();
  out.append(text);
  for (std::byte& b : out.span().subspan(before)) {
    if (b == std::byte{'\r'} || b == std::byte{'\n'} || b == std::byte{0}) b = std::byte{' '};
  }
}

void append_number(ByteBuffer& out, std::uint64_t value, int base = 10) {
  char text[24];
  out.append(text,
             static_cast<std::size_t>(std::to_chars(text, text + sizeof(text), value, base).ptr - text));
}

}  // namespace

std::optional<std::uint64_t> parse_decimal(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

void Http1Response::begin_exchange(const Http1Exchange& exchange) {
  exchange_ = exchange;
  begun_ = false;
  framing_ = Framing::kNone;
}

OutMessage& Http1Response::append() {
  earlier_bytes_ = pending_bytes();
  if (used_ == messages_.size()) messages_.emplace_back();
  return messages_[used_++];
}

ByteBuffer& Http1Response::tail() {
  if (used_ != 0) {
    OutMessage& last = messages_[used_ - 1];
    if (last.external.empty() && last.own.size() < kReferenceBytes) return last.own;
  }
  return append().own;
}

void Http1Response::put_head(int status, std::span<const Http1Header> headers) {
  begun_ = true;
  given_length_ = false;
  ByteBuffer& out = tail();
  out.append("HTTP/1.1 ");
  append_number(out, static_cast<std::uint64_t>(std::clamp(status, 100, 999)));
  out.push_back(' ');
  out.append(phrase(status));
  out.append("\r\n");
  for (const Http1Header& h : headers) {
    if (equals_lower(h.name, "content-length")) {
      const auto length = parse_decimal(h.value);
      given_length_ = length.has_value();
      left_bytes_ = length.value_or(0);
      continue;
    }
    if (equals_lower(h.name, "connection")) {
      if (equals_lower(h.value, "close")) exchange_.keep_alive = false;
      continue;
    }
    if (equals_lower(h.name, "transfer-encoding") || equals_lower(h.name, "keep-alive")) continue;
    append_clean(out, h.name);
    out.append(": ");
    append_clean(out, h.value);
    out.append("\r\n");
  }
}

void Http1Response::put_length(std::uint64_t bytes) {
  ByteBuffer& out = messages_[used_ - 1].own;
  out.append("content-length: ");
  append_number(out, bytes);
  out.append("\r\n");
}

void Http1Response::put_connection() {
  ByteBuffer& out = messages_[used_ - 1].own;
  if (!exchange_.keep_alive) {
    out.append("connection: close\r\n\r\n");
  } else if (exchange_.minor_version == 0) {
    out.append("connection: keep-alive\r\n\r\n");
  } else {
    out.append("\r\n");
  }
}

void Http1Response::whole(int status, std::span<const Http1Header> headers, OutMessage&& body) {
  const std::uint64_t bytes = body.bytes();
  put_head(status, headers);
  if (exchange_.head_method) {
    put_length(given_length_ ? left_bytes_ : bytes);
  } else if (!without_body(status)) {
    put_length(bytes);
  }
  put_connection();
  if (bytes == 0 || without_body(status)) {
    body.clear();
  } else if (body.external.empty() && body.own.size() < kReferenceBytes) {
    messages_[used_ - 1].own.append(body.own.span());
    body.clear();
  } else {
    std::swap(append(), body);
    body.clear();
  }
}

void Http1Response::whole(int status, std::span<const Http1Header> headers, std::string_view body) {
  OutMessage message;
  message.own.append(body);
  whole(status, headers, std::move(message));
}

void Http1Response::begin(int status, std::span<const Http1Header> headers) {
  put_head(status, headers);
  if (given_length_ && !(status < 200 || status == 204)) put_length(left_bytes_);
  if (without_body(status)) {
    framing_ = Framing::kNone;
  } else if (given_length_) {
    framing_ = Framing::kLength;
  } else if (exchange_.minor_version == 0) {
    framing_ = Framing::kUntilClose;
    exchange_.keep_alive = false;
  } else {
    framing_ = Framing::kChunked;
    messages_[used_ - 1].own.append("transfer-encoding: chunked\r\n");
  }
  put_connection();
}

void Http1Response::chunk(std::span<const std::byte> piece) {
  if (framing_ == Framing::kNone || piece.empty()) return;
  if (framing_ == Framing::kLength) {
    piece = piece.first(static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), left_bytes_)));
    left_bytes_ -= piece.size();
  }
  ByteBuffer& out = tail();
  if (framing_ == Framing::kChunked) {
    append_number(out, piece.size(), 16);
    out.append("\r\n");
  }
  out.append(piece);
  if (framing_ == Framing::kChunked) out.append("\r\n");
}

void Http1Response::end() {
  if (framing_ == Framing::kChunked) tail().append("0\r\n\r\n");
  if (framing_ == Framing::kLength && left_bytes_ != 0) exchange_.keep_alive = false;
  framing_ = Framing::kNone;
}

void Http1Response::write(WriteQueue& queue) {
  for (std::size_t i = 0; i < used_; ++i) {
    queue.append(std::move(messages_[i]));
    messages_[i].clear();
    messages_[i].own.shrink(kKeepBytes);
  }
  if (messages_.size() > kKeepMessages) messages_.resize(kKeepMessages);
  used_ = 0;
}

}  // namespace fastserve
