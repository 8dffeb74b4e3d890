// What a TLS server needs to know before a client connects: certificate chain, private key, which clients it trusts, and
// which versions and ciphers it speaks. Immutable: sessions hold it by shared_ptr, so that new certificates are a new object
// and open connections go on with the old one. Built on OpenSSL 3, which only codec/tls* includes.
//
// Chosen for all (RFC 9325, and RFC 9113 section 9.2 for HTTP/2): TLS 1.2 or 1.3; for 1.2 ECDHE with an AEAD cipher only;
// AES-128 first, ChaCha20 when the client prefers it; no compression, no renegotiation, no early data. No session tickets and
// no session cache: an inference client keeps its connection, every connection shows its client certificate anew, and
// there is no ticket key to rotate.
// Thread: any (immutable).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

using SSL_CTX = struct ssl_ctx_st;

namespace fastserve {

enum class TlsVersion : std::uint8_t { k12, k13 };

// PEM text, and what errors call it (a file name).
struct TlsPem {
  std::string_view text;
  std::string_view name;
};

struct TlsIdentity {
  TlsPem certificates;  // the server's own first, then the intermediate ones
  TlsPem key;           // not encrypted
  TlsPem client_ca;     // not empty: clients must show a certificate that one of these has signed (mTLS)
  TlsVersion min_version = TlsVersion::k12;
};

// The server's own certificate. Times in seconds since 1970.
struct TlsCertificate {
  std::string subject;  // "CN=models.example"
  std::string sha256;   // fingerprint, lower-case hex
  std::int64_t not_before_s = 0;
  std::int64_t not_after_s = 0;  // the earliest of the chain
};

class TlsConfiguration {
 public:
  // INVALID_ARGUMENT: `<name>: <reason>`; nothing of the key is ever in a message.
  static Result<std::shared_ptr<const TlsConfiguration>> make(const TlsIdentity& identity);
  ~TlsConfiguration();
  TlsConfiguration(const TlsConfiguration&) = delete;
  TlsConfiguration& operator=(const TlsConfiguration&) = delete;

  const TlsCertificate& certificate() const { return certificate_; }
  bool wants_client_certificate() const { return wants_client_certificate_; }

 private:
  friend class TlsSession;
  explicit TlsConfiguration(SSL_CTX* native) : native_(native) {}

  SSL_CTX* const native_;  // OpenSSL counts references to it and locks what sessions share
  TlsCertificate certificate_;
  bool wants_client_certificate_ = false;
};

}  // namespace fastserve
