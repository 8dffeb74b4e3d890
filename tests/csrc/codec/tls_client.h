// A TLS client without sockets (OpenSSL over memory BIOs), and both sides of a connection in one place.
#pragma once

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <array>
#include <memory>
#include <string>
#include <string_view>

#include "codec/tls_certificates.h"
#include "codec/tls_session.h"

namespace fastserve::testing {

struct ClientWishes {
  std::string authority;  // PEM; "": trusts everybody
  Pem own;                // client certificate; empty: none
  int lowest = TLS1_2_VERSION;
  int highest = TLS1_3_VERSION;
  std::string alpn = "\x02h2";  // wire form; "": none
  const char* ciphers = nullptr;
};

class TlsClient {
 public:
  explicit TlsClient(const ClientWishes& wishes) {
    SSL_CTX* context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(context, SSL_MODE_NO_AUTO_CHAIN);  // shows its own certificate alone
    SSL_CTX_set_security_level(context, 0);             // to offer TLS 1.0, too
    SSL_CTX_set_min_proto_version(context, wishes.lowest);
    SSL_CTX_set_max_proto_version(context, wishes.highest);
    if (wishes.ciphers != nullptr) SSL_CTX_set_cipher_list(context, wishes.ciphers);
    if (!wishes.authority.empty()) {
      X509* authority = read(wishes.authority);
      X509_STORE_add_cert(SSL_CTX_get_cert_store(context), authority);
      X509_free(authority);
      SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
    }
    if (!wishes.own.certificate.empty()) use(context, wishes.own);
    if (!wishes.alpn.empty()) {
      SSL_CTX_set_alpn_protos(context, reinterpret_cast<const unsigned char*>(wishes.alpn.data()),
                              static_cast<unsigned>(wishes.alpn.size()));
    }
    native_ = SSL_new(context);
    SSL_CTX_free(context);
    SSL_set_bio(native_, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(native_);
  }
  ~TlsClient() { SSL_free(native_); }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  SSL* native() { return native_; }
  bool established() { return SSL_is_init_finished(native_) == 1; }

  // Goes on with the handshake and reads; what the server said is in `received`.
  void step() {
    ERR_clear_error();
    if (!established()) {
      const int rc = SSL_do_handshake(native_);
      if (rc != 1) return note(rc);
    }
    std::array<char, 20000> piece;
    int n = 0;
    while ((n = SSL_read(native_, piece.data(), static_cast<int>(piece.size()))) > 0) {
      received.append(piece.data(), static_cast<std::size_t>(n));
    }
    note(n);
  }
  void say(std::string_view text) {
    if (!text.empty()) SSL_write(native_, text.data(), static_cast<int>(text.size()));
  }
  std::string take_output() {
    BIO* out = SSL_get_wbio(native_);
    std::string bytes(BIO_ctrl_pending(out), '\0');
    if (!bytes.empty()) BIO_read(out, bytes.data(), static_cast<int>(bytes.size()));
    return bytes;
  }
  void give(std::string_view bytes) {
    if (!bytes.empty()) BIO_write(SSL_get_rbio(native_), bytes.data(), static_cast<int>(bytes.size()));
  }

  std::string received;
  bool saw_close = false;
  std::string error;

 private:
  void note(int rc) {
    const int kind = SSL_get_error(native_, rc);
    if (kind == SSL_ERROR_ZERO_RETURN) saw_close = true;
    if (kind == SSL_ERROR_SSL && error.empty()) {
      const char* words = ERR_reason_error_string(ERR_peek_error());
      error = words == nullptr ? "?" : words;
    }
  }
  static X509* read(const std::string& pem) {
    BIO* bio = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
    X509* made = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
    BIO_free(bio);
    return made;
  }
  static void use(SSL_CTX* context, const Pem& own) {
    X509* certificate = read(own.certificate);
    BIO* bio = BIO_new_mem_buf(own.key.data(), static_cast<int>(own.key.size()));
    EVP_PKEY* key = PEM_read_bio_PrivateKey(bio, nullptr, nullptr, nullptr);
    BIO_free(bio);
    SSL_CTX_use_certificate(context, certificate);
    SSL_CTX_use_PrivateKey(context, key);
    X509_free(certificate);
    EVP_PKEY_free(key);
  }

  SSL* native_ = nullptr;
};

// Moves what is in `queue` out, as a socket would.
inline std::string take_all(WriteQueue& queue) {
  std::string out;
  std::array<iovec, 8> pieces;
  while (!queue.empty()) {
    std::size_t bytes = 0;
    for (const iovec& piece : std::span(pieces).first(queue.gather(pieces))) {
      out.append(static_cast<const char*>(piece.iov_base), piece.iov_len);
      bytes += piece.iov_len;
    }
    queue.consume(bytes);
  }
  return out;
}

// A server session and where its plaintext went. The client is the test's.
class TlsServer {
 public:
  explicit TlsServer(std::shared_ptr<const TlsConfiguration> configuration,
                     TlsProtocols protocols = TlsProtocols::kHttp2, const TlsLimits& limits = {})
      : session(std::move(configuration), protocols, out, 0, limits) {}

  void feed(std::string_view bytes) {
    session.feed(std::as_bytes(std::span(bytes.data(), bytes.size())));
    std::array<std::byte, TlsSession::kRecordBytes> scratch;
    for (auto piece = session.read(scratch); !piece.empty(); piece = session.read(scratch)) {
      received.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    }
  }
  void say(std::string_view text) {
    plaintext.append(text);
    session.write(plaintext);
  }

  WriteQueue out;
  WriteQueue plaintext;
  TlsSession session;
  std::string received;
};

// Back and forth until nobody has anything to say.
inline void converse(TlsClient& client, TlsServer& server) {
  for (int quiet = 0; quiet < 2;) {
    client.step();
    const std::string up = client.take_output();
    server.feed(up);
    server.session.write(server.plaintext);
    const std::string down = take_all(server.out);
    client.give(down);
    quiet = up.empty() && down.empty() ? quiet + 1 : 0;
  }
}

}  // namespace fastserve::testing
