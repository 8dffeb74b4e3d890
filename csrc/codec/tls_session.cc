#include "codec/tls_session.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "codec/tls_callbacks.h"

namespace fastserve {

// OpenSSL's view of a session: a BIO that reads `input_` and appends to `out_`, and the callbacks.
struct TlsCallbacks {
  static TlsSession& of(BIO* bio) { return *static_cast<TlsSession*>(BIO_get_data(bio)); }
  static TlsSession& of(const SSL* native) { return *static_cast<TlsSession*>(SSL_get_app_data(native)); }

  static int read(BIO* bio, char* to, std::size_t size, std::size_t* got) {
    TlsSession& session = of(bio);
    BIO_clear_retry_flags(bio);
    *got = std::min(size, session.input_.size());
    if (*got == 0) {
      BIO_set_retry_read(bio);
      return 0;
    }
    std::memcpy(to, session.input_.data(), *got);
    session.input_ = session.input_.subspan(*got);
    if (!session.established_) session.handshake_bytes_ += *got;
    return 1;
  }

  static int write(BIO* bio, const char* from, std::size_t size, std::size_t* written) {
    *written = size;
    try {
      of(bio).out_.append(std::string_view(from, size));
    } catch (const std::bad_alloc&) {  // not through C
      return 0;
    }
    return 1;
  }

  static long control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

  static void message(int is_write, int, int type, const void* data, std::size_t size, SSL* native, void*) {
    if (is_write == 0 && type == SSL3_RT_HANDSHAKE && size != 0 &&
        *static_cast<const unsigned char*>(data) == SSL3_MT_KEY_UPDATE) {
      ++of(native).key_updates_;
    }
  }

  static BIO_METHOD* method() {
    static BIO_METHOD* const made = [] {
      BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "fastserve session");
      BIO_meth_set_read_ex(m, read);
      BIO_meth_set_write_ex(m, write);
      BIO_meth_set_ctrl(m, control);
      return m;
    }();
    return made;
  }

  static int verify(int preverified, X509_STORE_CTX* store) {
    if (preverified == 1) return 1;
    const auto* native =
        static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
    X509* certificate = X509_STORE_CTX_get0_cert(store);  // the client's own
    if (certificate != nullptr) of(native).client_ = tls_name(X509_get_subject_name(certificate));
    return 0;
  }

  static int client_hello(SSL* native, int* alert) {
    TlsSession& session = of(native);
    const unsigned char* extension = nullptr;
    std::size_t size = 0;
    const bool has_alpn =
        SSL_client_hello_get0_ext(native, TLSEXT_TYPE_application_layer_protocol_negotiation, &extension,
                                  &size) == 1;
    if (has_alpn || session.protocols_ != TlsProtocols::kHttp2) return SSL_CLIENT_HELLO_SUCCESS;
    session.fail(TlsFailure::kProtocol, "the client offers no protocol by ALPN, want h2");
    *alert = SSL_AD_NO_APPLICATION_PROTOCOL;
    return SSL_CLIENT_HELLO_ERROR;
  }

  // `offered`: length-prefixed names; OpenSSL has checked the lengths.
  static int alpn(SSL* native, const unsigned char** out, unsigned char* out_size,
                  std::span<const unsigned char> offered) {
    TlsSession& session = of(native);
    constexpr std::array<std::string_view, 2> kOurs = {"h2", "http/1.1"};
    const std::size_t ours = session.protocols_ == TlsProtocols::kHttp2 ? 1 : kOurs.size();
    for (const std::string_view wanted : std::span(kOurs).first(ours)) {
      for (auto rest = offered; !rest.empty(); rest = rest.subspan(1U + rest[0])) {
        const std::string_view name(reinterpret_cast<const char*>(rest.data()) + 1, rest[0]);
        if (name != wanted) continue;
        *out = rest.data() + 1;
        *out_size = rest[0];
        return SSL_TLSEXT_ERR_OK;
      }
    }
    session.fail(TlsFailure::kProtocol,
                 ours == 1 ? "the client offers other protocols by ALPN, want h2"
                           : "the client offers other protocols by ALPN, want h2 or http/1.1");
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
};

int tls_on_verify(int preverified, X509_STORE_CTX* store) { return TlsCallbacks::verify(preverified, store); }

int tls_on_client_hello(SSL* native, int* alert, void*) { return TlsCallbacks::client_hello(native, alert); }

int tls_on_alpn(SSL* native, const unsigned char** out, unsigned char* out_size, const unsigned char* offered,
                unsigned int offered_size, void*) {
  return TlsCallbacks::alpn(native, out, out_size, std::span(offered, offered_size));
}

TlsSession::TlsSession(std::shared_ptr<const TlsConfiguration> configuration, TlsProtocols protocols,
                       WriteQueue& out, Nanos now, const TlsLimits& limits)
    : configuration_(std::move(configuration)),
      out_(out),
      limits_(limits),
      deadline_(now + limits.handshake_timeout_ns),
      protocols_(protocols) {}

TlsSession::~TlsSession() { SSL_free(native_); }

std::span<const std::byte> TlsSession::read(std::span<std::byte> scratch) {
  if (failed() || peer_closed_ || input_.empty()) {
    input_ = {};
    return {};
  }
  if (!established_ && (!begin() || !handshake())) return {};
  ERR_clear_error();
  std::size_t got = 0;
  const int rc = SSL_read_ex(native_, scratch.data(), scratch.size(), &got);
  if (key_updates_ > limits_.key_updates) {
    fail(TlsFailure::kViolation,
         "the client sent more than " + std::to_string(limits_.key_updates) + " KeyUpdate messages");
    return {};
  }
  if (rc == 1) return scratch.first(got);
  const int error = SSL_get_error(native_, rc);
  if (error == SSL_ERROR_ZERO_RETURN) {
    peer_closed_ = true;
    input_ = {};
  } else if (error != SSL_ERROR_WANT_READ) {
    fail_by_openssl();
  }
  return {};
}

// Looks at the first bytes before OpenSSL does. A TLS record starts with 22, everything that speaks HTTP with a letter.
bool TlsSession::begin() {
  if (begun_) return true;
  const std::size_t missing = 4 - opening_.size();
  const auto first =
      static_cast<unsigned char>(opening_.empty() ? static_cast<char>(input_[0]) : opening_[0]);
  if (first == SSL3_RT_HANDSHAKE) {
    native_ = SSL_new(configuration_->native_);
    BIO* bio = BIO_new(TlsCallbacks::method());
    if (native_ == nullptr || bio == nullptr) {
      BIO_free(bio);
      fail(TlsFailure::kViolation, "out of memory");
      return false;
    }
    BIO_set_data(bio, this);
    BIO_set_init(bio, 1);
    SSL_set_bio(native_, bio, bio);
    SSL_set_app_data(native_, this);
    SSL_set_msg_callback(native_, TlsCallbacks::message);
    SSL_set_accept_state(native_);
    begun_ = true;
    return true;
  }
  if (first < 'A' || first > 'Z') {
    fail(TlsFailure::kNotTls, "the first byte is " + std::to_string(first) + ", want a TLS handshake");
    return false;
  }
  const auto piece = input_.first(std::min(missing, input_.size()));
  opening_.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  input_ = {};
  if (opening_.size() == 4) refuse_plain_text();
  return false;
}

// In the language of the client, so that it learns the reason.
void TlsSession::refuse_plain_text() {
  constexpr std::string_view kWords = "this port speaks TLS";
  if (opening_ == "PRI ") {
    // SETTINGS without settings; GOAWAY, no stream processed, INADEQUATE_SECURITY (RFC 9113 section 7), with the words.
    constexpr std::string_view kFrames(
        "\0\0\0\x04\0\0\0\0\0"
        "\0\0\x1c\x07\0\0\0\0\0"
        "\0\0\0\0"
        "\0\0\0\x0c",
        26);
    static_assert(kWords.size() + 8 == 0x1c);
    out_.append(kFrames);
    out_.append(kWords);
  } else {
    constexpr std::string_view kAdvice = ", use https://\n";
    static_assert(kWords.size() + kAdvice.size() == 35);
    out_.append(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 35\r\nconnection: "
        "close\r\n\r\n");
    out_.append(kWords);
    out_.append(kAdvice);
  }
  fail(TlsFailure::kPlainText,
       opening_ == "PRI " ? "the client speaks HTTP/2 without TLS" : "the client speaks HTTP without TLS");
}

bool TlsSession::handshake() {
  ERR_clear_error();
  const int rc = SSL_do_handshake(native_);
  if (rc == 1) {
    established_ = true;
    return true;
  }
  if (SSL_get_error(native_, rc) != SSL_ERROR_WANT_READ) {
    fail_by_openssl();
  } else if (handshake_bytes_ > limits_.handshake_bytes) {
    fail(TlsFailure::kTooLarge,
         "the handshake has more than " + std::to_string(limits_.handshake_bytes) + " bytes");
  }
  return false;
}

void TlsSession::fail(TlsFailure failure, std::string_view text) {
  if (failed()) return;
  failure_ = failure;
  error_ = text;
  input_ = {};
}

void TlsSession::write(WriteQueue& plaintext) {
  if (failed() || closed_) return plaintext.clear();
  if (!established_) return;
  std::array<std::byte, kRecordBytes>
      staged;  // small pieces (frame headers) share a record with what follows
  std::array<iovec, 16> pieces;
  while (!plaintext.empty() && out_.bytes() < kHighWaterBytes) {
    const std::size_t count = plaintext.gather(pieces);
    std::span<const std::byte> record(static_cast<const std::byte*>(pieces[0].iov_base),
                                      std::min(pieces[0].iov_len, kRecordBytes));
    if (count > 1 && record.size() < kRecordBytes) {
      std::size_t used = 0;
      for (const iovec& piece : std::span(pieces).first(count)) {
        const std::size_t taken = std::min(piece.iov_len, kRecordBytes - used);
        std::memcpy(staged.data() + used, piece.iov_base, taken);
        used += taken;
      }
      record = std::span(staged).first(used);
    }
    if (!write_record(record)) return plaintext.clear();
    plaintext.consume(record.size());
  }
}

bool TlsSession::write_record(std::span<const std::byte> plaintext) {
  ERR_clear_error();
  std::size_t written = 0;
  if (SSL_write_ex(native_, plaintext.data(), plaintext.size(), &written) == 1) return true;
  fail_by_openssl();
  return false;
}

void TlsSession::close() {
  if (closed_) return;
  closed_ = true;
  if (!established_ || failed()) return;
  ERR_clear_error();
  static_cast<void>(SSL_shutdown(native_));
}

void TlsSession::end_of_input() {
  if (peer_closed_) return;
  peer_closed_ = true;
  if (failed()) return;
  truncated_ = established_;
  if (!established_) fail(TlsFailure::kCutOff, "the client went away in the middle of the handshake");
}

void TlsSession::expire(Nanos now) {
  if (established_ || failed() || now < deadline_) return;
  fail(TlsFailure::kTimeout, "the handshake was not complete after " +
                                 std::to_string(limits_.handshake_timeout_ns / kSecond) + " s");
}

std::string_view TlsSession::protocol() const {
  const unsigned char* name = nullptr;
  unsigned int size = 0;
  if (native_ != nullptr) SSL_get0_alpn_selected(native_, &name, &size);
  return {reinterpret_cast<const char*>(name), size};
}

std::string_view TlsSession::version() const { return native_ == nullptr ? "" : SSL_get_version(native_); }

}  // namespace fastserve
