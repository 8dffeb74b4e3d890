// llhttp with limits: the request side of one HTTP/1.1 connection. Bytes in, one message at a time out; it stops behind
// each message, so that the session decides when the next one is looked at. Thread: one.
#pragma once

#include <llhttp.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "codec/http1_head.h"
#include "memory/byte_buffer.h"

namespace fastserve {

class Http1ParserEvents {
 public:
  // False: stop parsing for good (no error of the parser's).
  virtual bool on_head(const Http1Head& head) = 0;
  virtual void on_piece(std::span<const std::byte> piece) = 0;

 protected:
  ~Http1ParserEvents() = default;
};

class Http1Parser {
 public:
  enum class Step : std::uint8_t { kMore, kMessageEnd, kStopped, kError };

  Http1Parser(Http1ParserEvents& events, const Http1Limits& limits);
  Http1Parser(const Http1Parser&) = delete;
  Http1Parser& operator=(const Http1Parser&) = delete;

  // Takes bytes off the front of `input`: all (kMore), or up to the end of a message (kMessageEnd: call again for the next).
  // After kStopped and kError it must not be called again.
  Step parse(std::span<const std::byte>& input);

  bool in_message() const { return started_; }  // the first byte of a message was seen, its end was not
  // After kError: the HTTP status to answer with, and why.
  int error_status() const { return error_status_; }
  const std::string& error_reason() const { return error_reason_; }

 private:
  static const llhttp_settings_t& settings();
  static Http1Parser& self(llhttp_t* parser) { return *static_cast<Http1Parser*>(parser->data); }

  int on_target(std::string_view piece);
  int on_header_name(std::string_view piece);
  int on_header_value(std::string_view piece);
  int on_header_complete();
  int on_headers_complete();
  int on_chunk_header();
  int on_chunk_extension(std::size_t bytes);
  int on_body(std::string_view piece);
  void note_gap(const char* end);
  int count_header_bytes(std::size_t bytes);
  int check_head(Http1Head& head);
  int check_framing(const Http1Head& head);
  bool split_target(Http1Head& head) const;
  int refuse(int status, std::string reason);  // for callbacks: keeps the error, returns what stops llhttp
  void explain(llhttp_errno_t error);
  void start_message();
  bool trailing() const { return (parser_.flags & F_TRAILING) != 0; }

  struct Field {  // offsets in text_
    std::size_t name_at;
    std::size_t name_bytes;
    std::size_t value_bytes;
  };

  Http1ParserEvents& events_;
  const Http1Limits& limits_;
  llhttp_t parser_{};
  bool paused_ = false;  // behind a message
  bool started_ = false;
  bool stopped_ = false;  // by on_head
  int error_status_ = 0;
  std::string error_reason_;

  ByteBuffer text_;  // target, then names and values of the current head
  std::size_t target_bytes_ = 0;
  std::vector<Field> fields_;
  std::vector<Http1Header> headers_;  // views into text_, made when the head is complete
  std::size_t header_count_ = 0;
  std::size_t header_bytes_ = 0;
  std::size_t chunks_ = 0;
  std::size_t chunk_extension_bytes_ = 0;
  std::size_t body_bytes_ = 0;
  std::string first_bytes_;  // of the message: tells an unknown method (501) from noise (400)
  // A header line that goes on after a line break (obs-fold, RFC 9112 section 5.2) is how a header hides from a proxy. llhttp
  // joins it silently; the bytes between the pieces that it reports give it away.
  const char* gap_from_ = nullptr;  // in the input of this call
  bool gap_has_newline_ = false;
  bool value_open_ = false;  // between the first piece of a name and the end of its value
};

}  // namespace fastserve
