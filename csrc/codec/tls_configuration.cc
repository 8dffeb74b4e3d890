#include "codec/tls_configuration.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <ctime>
#include <span>
#include <vector>

#include "codec/tls_callbacks.h"

namespace fastserve {
namespace {

constexpr const char* kCiphers12 =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
constexpr const char* kSuites13 =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

template <auto Free>
struct Freed {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Bio = std::unique_ptr<BIO, Freed<BIO_free_all>>;
using Certificate = std::unique_ptr<X509, Freed<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY_free>>;

Status bad(const TlsPem& pem, std::string_view reason) {
  ERR_clear_error();
  return invalid_argument(std::string(pem.name) + ": " + std::string(reason));
}

// `reason`, with what OpenSSL says when it says something.
Status refused(const TlsPem& pem, std::string reason) {
  const char* detail = ERR_reason_error_string(ERR_peek_last_error());
  if (detail != nullptr) reason += std::string(" (") + detail + ")";
  return bad(pem, reason);
}

Bio open(const TlsPem& pem) {
  return Bio(BIO_new_mem_buf(pem.text.data(), static_cast<int>(pem.text.size())));
}

// OpenSSL would ask on the terminal.
int no_passphrase(char*, int, int, void* asked) {
  *static_cast<bool*>(asked) = true;
  return 0;
}

Result<std::vector<Certificate>> read_certificates(const TlsPem& pem) {
  const Bio bio = open(pem);
  std::vector<Certificate> found;
  bool asked = false;
  while (X509* certificate = PEM_read_bio_X509_AUX(bio.get(), nullptr, no_passphrase, &asked)) {
    found.emplace_back(certificate);
  }
  // The normal end of the file; anything else is a damaged block, or half of one.
  if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
    return refused(pem, "certificate number " + std::to_string(found.size() + 1) + " cannot be read");
  }
  if (found.empty()) return bad(pem, "holds no certificate (want PEM, -----BEGIN CERTIFICATE-----)");
  ERR_clear_error();
  return found;
}

Result<Key> read_key(const TlsPem& pem) {
  const Bio bio = open(pem);
  bool asked = false;
  Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, &asked));
  if (key != nullptr) return key;
  if (asked)
    return bad(pem,
               "the private key is encrypted, want it without a passphrase (openssl pkey -in ... -out ...)");
  if (pem.text.find("PRIVATE KEY-----") == std::string_view::npos) {
    return bad(pem, "holds no private key (want PEM, -----BEGIN PRIVATE KEY-----)");
  }
  return refused(pem, "the private key cannot be read");
}

std::int64_t seconds_of(const ASN1_TIME* time) {
  std::tm parts{};
  return ASN1_TIME_to_tm(time, &parts) == 1 ? static_cast<std::int64_t>(::timegm(&parts)) : 0;
}

TlsCertificate describe(const std::vector<Certificate>& chain) {
  TlsCertificate out;
  X509* own = chain.front().get();
  out.subject = tls_name(X509_get_subject_name(own));
  out.not_before_s = seconds_of(X509_get0_notBefore(own));
  out.not_after_s = INT64_MAX;
  for (const Certificate& each : chain) {
    out.not_after_s = std::min(out.not_after_s, seconds_of(X509_get0_notAfter(each.get())));
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  X509_digest(own, EVP_sha256(), digest, &size);
  for (const unsigned char byte : std::span(digest).first(size)) {
    out.sha256 += "0123456789abcdef"[byte >> 4U];
    out.sha256 += "0123456789abcdef"[byte & 15U];
  }
  return out;
}

void set_policy(SSL_CTX* native, TlsVersion min_version) {
  SSL_CTX_set_min_proto_version(native, min_version == TlsVersion::k13 ? TLS1_3_VERSION : TLS1_2_VERSION);
  SSL_CTX_set_cipher_list(native, kCiphers12);
  SSL_CTX_set_ciphersuites(native, kSuites13);
  SSL_CTX_set_options(native, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                  SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA |
                                  SSL_OP_NO_TICKET);
  SSL_CTX_set_session_cache_mode(native, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(native, 0);
  SSL_CTX_set_mode(native, SSL_MODE_RELEASE_BUFFERS);  // an idle connection holds no record buffers
}

Status set_own(SSL_CTX* native, const TlsIdentity& identity, std::vector<Certificate>& chain) {
  if (SSL_CTX_use_certificate(native, chain.front().get()) != 1) {
    return refused(identity.certificates, "the certificate cannot be used");
  }
  for (std::size_t i = 1; i < chain.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(native, chain[i].get()) != 1) {
      return refused(identity.certificates,
                     "certificate number " + std::to_string(i + 1) + " cannot be used");
    }
  }
  FS_ASSIGN_OR_RETURN(const Key key, read_key(identity.key));
  if (X509_check_private_key(chain.front().get(), key.get()) != 1) {
    return bad(identity.key, "the private key does not belong to the first certificate of " +
                                 std::string(identity.certificates.name));
  }
  if (SSL_CTX_use_PrivateKey(native, key.get()) != 1)
    return refused(identity.key, "the private key cannot be used");
  return Status::ok();
}

Status set_client_ca(SSL_CTX* native, const TlsPem& pem) {
  FS_ASSIGN_OR_RETURN(const std::vector<Certificate> trusted, read_certificates(pem));
  X509_STORE* store = SSL_CTX_get_cert_store(native);
  for (std::size_t i = 0; i < trusted.size(); ++i) {
    const std::string number = "certificate number " + std::to_string(i + 1);
    if (X509_check_ca(trusted[i].get()) == 0)
      return bad(pem, number + " is not that of an authority (CA:TRUE)");
    if (X509_STORE_add_cert(store, trusted[i].get()) != 1 ||
        SSL_CTX_add_client_CA(native, trusted[i].get()) != 1) {
      return refused(pem, number + " cannot be used");
    }
  }
  SSL_CTX_set_verify(native, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, tls_on_verify);
  return Status::ok();
}

}  // namespace

std::string tls_name(const X509_NAME* name) {
  const Bio bio(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(bio.get(), name, 0, XN_FLAG_RFC2253 & ~static_cast<unsigned long>(ASN1_STRFLGS_ESC_MSB));
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return {text, static_cast<std::size_t>(std::max(size, 0L))};
}

Result<std::shared_ptr<const TlsConfiguration>> TlsConfiguration::make(const TlsIdentity& identity) {
  ERR_clear_error();
  SSL_CTX* native = SSL_CTX_new(TLS_server_method());
  if (native == nullptr) return internal_error("OpenSSL has no TLS server");
  const std::shared_ptr<TlsConfiguration> out(new TlsConfiguration(native));
  set_policy(native, identity.min_version);
  FS_ASSIGN_OR_RETURN(std::vector<Certificate> chain, read_certificates(identity.certificates));
  out->certificate_ = describe(chain);
  FS_RETURN_IF_ERROR(set_own(native, identity, chain));
  out->wants_client_certificate_ = !identity.client_ca.name.empty();
  if (out->wants_client_certificate_) FS_RETURN_IF_ERROR(set_client_ca(native, identity.client_ca));
  SSL_CTX_set_client_hello_cb(native, tls_on_client_hello, nullptr);
  SSL_CTX_set_alpn_select_cb(native, tls_on_alpn, nullptr);
  return std::shared_ptr<const TlsConfiguration>(out);
}

TlsConfiguration::~TlsConfiguration() { SSL_CTX_free(native_); }

}  // namespace fastserve
