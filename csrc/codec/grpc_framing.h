// gRPC over HTTP/2, the part that is not HTTP/2: length-prefixed messages, grpc-timeout, grpc-message, content-type.
// Source: the gRPC repository's PROTOCOL-HTTP2, compression and statuscodes documents. Pure; one thread per object.
//
// Bad framing and its answer (contracts.md section 0: gRPC's own codes, INTERNAL included):
//   content-type is not application/grpc[+proto]         HTTP 415 (not a gRPC call, so no grpc-status)
//   flag 1, grpc-encoding absent or "identity"           INTERNAL
//   flag 1, a grpc-encoding that we do not have          UNIMPLEMENTED, names it; grpc-accept-encoding says what we have
//   flag 1, the data is no gzip or zlib data             INVALID_ARGUMENT (gRPC names no code; the client's fault)
//   flag 1, unpacks to more than the limit               RESOURCE_EXHAUSTED, at the limit
//   flag 2..255                                          INTERNAL
//   length over the limit                                RESOURCE_EXHAUSTED, before a byte of it is stored
//   stream ends inside prefix or message                 INTERNAL
//   unary call with no message or with a second one      UNIMPLEMENTED (cardinality violation)
//   grpc-timeout malformed                               INVALID_ARGUMENT (gRPC names no code; the client's fault)
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/status.h"
#include "codec/compression.h"
#include "memory/byte_buffer.h"

namespace fastserve {

inline constexpr std::size_t kGrpcPrefixBytes = 5;  // flag, length as big-endian u32
inline constexpr std::size_t kDefaultMaxMessageBytes = std::size_t{64} << 20;

// Writes the prefix of an uncompressed message of `message_bytes` (< 2^32) to `at`.
void write_grpc_prefix(std::byte* at, std::size_t message_bytes);

// Cuts one call's DATA bytes into messages. Memory grows with the bytes received, never ahead of them by more than 1 MiB
// however large the prefix says the message is; work per byte does not depend on how the bytes are cut.
class GrpcDeframer {
 public:
  explicit GrpcDeframer(std::size_t max_message_bytes = kDefaultMaxMessageBytes)
      : max_bytes_(max_message_bytes) {}
  void reset() { *this = GrpcDeframer(max_bytes_); }

  // The request's grpc-encoding; "" or "identity" when absent. Set it before the first byte. An unknown one matters only to a
  // message that is compressed; up to 32 bytes of its name are kept for the error text.
  void set_encoding(std::string_view encoding);

  // Moves bytes from the front of `bytes` to `message` until the message is whole or `bytes` is used up.
  // When complete() the caller takes the message and calls next() (streams), then feeds the rest.
  // After an error the object stays in error.
  Status feed(std::span<const std::byte>& bytes, ByteBuffer& message);
  bool complete() const { return complete_; }
  // The complete message has the compressed flag: unpack() it. The limit holds for both its sizes.
  bool compressed() const { return compressed_; }
  // Replaces `message` by what it unpacks to; `scratch` (empty) gets the memory of the compressed one, for the next time.
  Status unpack(ByteBuffer& message, ByteBuffer& scratch);
  void next() { complete_ = false, prefix_used_ = 0; }
  // END_STREAM: an error when the stream ends inside a message. (Streams; for unary calls see below.)
  Status finish() const;

  // Unary: exactly one message. feed_unary refuses a byte behind the first message.
  Status feed_unary(std::span<const std::byte> bytes, ByteBuffer& message);
  Status finish_unary() const;

 private:
  Status read_prefix(ByteBuffer& message);

  std::size_t max_bytes_;
  std::size_t need_ = 0;  // bytes of the message still to come
  std::array<std::byte, kGrpcPrefixBytes> prefix_{};
  std::uint8_t prefix_used_ = 0;
  bool complete_ = false;
  bool failed_ = false;
  bool compressed_ = false;
  std::optional<Compression> compression_ = Compression::kIdentity;  // nullopt: not one of ours
  std::uint8_t encoding_size_ = 0;
  std::array<char, 32> encoding_{};  // no std::string: one deframer lives in every pooled call
};

// "100m" -> 100 ms. 1 to 8 digits and one of H M S m u n. nullopt when malformed; saturates at kNever.
std::optional<Nanos> parse_grpc_timeout(std::string_view text);

// Appends `text` percent-encoded as grpc-message wants it: everything but printable ASCII, and '%', as %XX.
void append_grpc_message(std::string_view text, std::string& out);

// application/grpc or application/grpc+proto, with or without ;parameters. Case-insensitive.
bool is_grpc_content_type(std::string_view value);

}  // namespace fastserve
