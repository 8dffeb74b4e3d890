// The answering side of one HTTP/1.1 connection: response heads and bodies as OutMessages, in order. Thread: one.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "codec/http1_head.h"
#include "codec/out_message.h"
#include "codec/write_queue.h"

namespace fastserve {

// What the response must know of its request.
struct Http1Exchange {
  bool head_method = false;
  bool keep_alive = true;
  int minor_version = 1;
};

class Http1Response {
 public:
  // The next response belongs to this request.
  void begin_exchange(const Http1Exchange& exchange);
  void forbid_keep_alive() { exchange_.keep_alive = false; }
  bool keep_alive() const { return exchange_.keep_alive; }
  bool begun() const { return begun_; }

  void whole(int status, std::span<const Http1Header> headers, OutMessage&& body);
  void whole(int status, std::span<const Http1Header> headers, std::string_view body);
  void begin(int status, std::span<const Http1Header> headers);
  void chunk(std::span<const std::byte> piece);
  void end();  // turns keep_alive() off when fewer bytes came than were announced
  void continue_100() { tail().append("HTTP/1.1 100 Continue\r\n\r\n"); }

  void write(WriteQueue& queue);
  bool pending() const { return used_ != 0; }
  std::size_t pending_bytes() const { return used_ == 0 ? 0 : earlier_bytes_ + messages_[used_ - 1].bytes(); }

 private:
  enum class Framing : std::uint8_t { kNone, kLength, kChunked, kUntilClose };

  ByteBuffer& tail();  // where small text goes: behind everything pending
  OutMessage& append();
  // Status line and headers without the session's own; remembers a content-length and obeys "connection: close".
  void put_head(int status, std::span<const Http1Header> headers);
  void put_length(std::uint64_t bytes);
  void put_connection();
  bool without_body(int status) const {
    return exchange_.head_method || status < 200 || status == 204 || status == 304;
  }

  Http1Exchange exchange_;
  bool begun_ = false;
  Framing framing_ = Framing::kNone;
  bool given_length_ = false;     // by a content-length header of the caller
  std::uint64_t left_bytes_ = 0;  // of it, kLength
  // The first used_ are pending; the rest keeps capacities for the next ones.
  std::vector<OutMessage> messages_;
  std::size_t used_ = 0;
  std::size_t earlier_bytes_ = 0;  // of the pending ones before the last
};

// The whole number that `text` is, nullopt for anything else.
std::optional<std::uint64_t> parse_decimal(std::string_view text);

}  // namespace fastserve
