// The server's side of one TLS connection (RFC 8446, RFC 5246): ciphertext in, plaintext out, and back. No I/O, no clock.
//
// Use, by the owner of a socket:
//   session.feed(what was read);
//   while (!(piece = session.read(scratch)).empty()) ...   plaintext, one record at a time
//   session.write(plaintext)                               encrypts what is in that queue
//   send what is in `out`; close the socket when finished() and `out` is empty (see lingers())
//
// The handshake, its answers and alerts need no other call: they go to `out` from inside read().
// Thread: one (the owner of the socket).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "codec/tls_configuration.h"
#include "codec/write_queue.h"

using SSL = struct ssl_st;

namespace fastserve {

// What a port speaks, by ALPN (RFC 7301). A client that offers protocols and none of ours is refused.
enum class TlsProtocols : std::uint8_t {
  kHttp2,  // gRPC: h2, and a client without ALPN is refused, as gRPC's own servers do (RFC 9113 section 3.2)
  kHttp1OrHttp2,  // REST: h2 before http/1.1; without ALPN what the first bytes say
};

// Why there is no (more) connection. The names are label values of a metric.
enum class TlsFailure : std::uint8_t {
  kNone,
  kPlainText,            // HTTP without TLS; was answered in plain text
  kNotTls,               // neither
  kVersion,              // no common version
  kCipher,               // no common cipher, group or signature
  kProtocol,             // ALPN: no common protocol, or none offered where one is demanded
  kNoClientCertificate,  // mTLS
  kClientCertificate,    // mTLS: expired, unknown authority, not for clients
  kRefusedByClient,      // the client sent an alert: it does not trust our certificate, say
  kTimeout,              // the handshake took too long
  kTooLarge,             // the handshake said too much
  kCutOff,               // the client went away in the middle of the handshake
  kViolation,            // anything else against the protocol, also later: a record that was tampered with
};
inline constexpr std::size_t kTlsFailures = 13;
std::string_view tls_failure_name(TlsFailure failure);  // "no_client_certificate"

struct TlsLimits {
  Nanos handshake_timeout_ns =
      10 * kSecond;  // from the first byte or the opening of the connection to its end
  std::size_t handshake_bytes =
      64 * 1024;  // received until the handshake is complete; a client's chain has 2 to 8 KB
  // KeyUpdate messages (RFC 8446 section 4.6.3) in the life of a connection: each costs a key derivation and may ask for an
  // answer. Honest clients send one in 2^24 records.
  std::uint32_t key_updates = 1024;
};

class TlsSession {
 public:
  static constexpr std::size_t kRecordBytes = 16 * 1024;      // plaintext of a record, at most
  static constexpr std::size_t kHighWaterBytes = 128 * 1024;  // ciphertext that write() lets wait in `out`

  // `out` outlives the session; nothing else appends to it. `now`: the handshake's time starts.
  TlsSession(std::shared_ptr<const TlsConfiguration> configuration, TlsProtocols protocols, WriteQueue& out,
             Nanos now, const TlsLimits& limits = {});
  ~TlsSession();
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;

  // Bytes from the socket. They must stay until read() has returned empty, which is when all were taken.
  void feed(std::span<const std::byte> ciphertext) { input_ = ciphertext; }
  // The next plaintext, in `scratch` (kRecordBytes); valid until the next call. Empty: nothing more for now.
  std::span<const std::byte> read(std::span<std::byte> scratch);
  // Encrypts from `plaintext` until that is empty or `out` holds kHighWaterBytes. Before the end of the handshake it does
  // nothing; after a failure or close() it drops what is there.
  void write(WriteQueue& plaintext);
  // Says that nothing more follows (close_notify). Once.
  void close();
  // The socket was closed by the peer. Without close_notify before it the stream was cut: truncated().
  void end_of_input();
  // Fails a handshake that has taken too long.
  void expire(Nanos now);

  bool established() const { return established_; }
  bool peer_closed() const { return peer_closed_; }  // close_notify, or the end of the socket
  bool closed() const { return closed_; }            // by us
  bool truncated() const { return truncated_; }
  bool failed() const { return failure_ != TlsFailure::kNone; }
  TlsFailure failure() const { return failure_; }
  const std::string& error() const { return error_; }  // one line, with what the peer sent or showed
  std::string_view protocol() const;                   // by ALPN: "h2", "http/1.1"; "" without
  std::string_view version() const;                    // "TLSv1.3"

 private:
  friend struct TlsCallbacks;
  bool begin();      // false: not TLS, or not enough bytes to know
  bool handshake();  // false: goes on with the next bytes, or failed
  void fail(TlsFailure failure, std::string_view text);
  void fail_by_openssl();
  void refuse_plain_text();
  bool write_record(std::span<const std::byte> plaintext);

  const std::shared_ptr<const TlsConfiguration> configuration_;
  SSL* native_ = nullptr;
  WriteQueue& out_;
  std::span<const std::byte> input_;
  const TlsLimits limits_;
  const Nanos deadline_;
  std::size_t handshake_bytes_ = 0;
  std::uint32_t key_updates_ = 0;
  const TlsProtocols protocols_;
  bool begun_ = false;
  bool established_ = false;
  bool closed_ = false;
  bool peer_closed_ = false;
  bool truncated_ = false;
  TlsFailure failure_ = TlsFailure::kNone;
  std::string opening_;  // the first bytes, while they may be plain text
  std::string error_;
  std::string client_;  // subject of the client certificate that was refused
};

}  // namespace fastserve
