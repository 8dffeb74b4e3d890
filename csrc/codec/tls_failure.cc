// What OpenSSL reports, in words for people and reasons for metrics.
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <array>

#include "codec/tls_session.h"

namespace fastserve {

std::string_view tls_failure_name(TlsFailure failure) {
  constexpr std::array<std::string_view, kTlsFailures> kNames = {"none",
                                                                 "plain_text",
                                                                 "not_tls",
                                                                 "version",
                                                                 "cipher",
                                                                 "protocol",
                                                                 "no_client_certificate",
                                                                 "client_certificate",
                                                                 "refused_by_client",
                                                                 "timeout",
                                                                 "too_large",
                                                                 "cut_off",
                                                                 "violation"};
  const auto at = static_cast<std::size_t>(failure);
  return at < kNames.size() ? kNames[at] : "unknown";
}

void TlsSession::fail_by_openssl() {
  const unsigned long code = ERR_peek_error();
  const int reason = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;
  ERR_clear_error();
  switch (reason) {
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
      return fail(TlsFailure::kNoClientCertificate, "the client shows no certificate");
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
      return fail(TlsFailure::kClientCertificate,
                  "client certificate " + client_ + ": " +
                      X509_verify_cert_error_string(SSL_get_verify_result(native_)));
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_WRONG_SSL_VERSION:
    case SSL_R_UNKNOWN_PROTOCOL:
      if (established_) break;
      return fail(TlsFailure::kVersion, "the client offers no version of TLS that is allowed here");
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_NO_SUITABLE_KEY_SHARE:
    case SSL_R_NO_SUITABLE_GROUPS:
    case SSL_R_NO_SHARED_GROUPS:
    case SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS:
    case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
      return fail(TlsFailure::kCipher, "no cipher, group or signature algorithm in common");
    default:
      break;
  }
  if (reason > SSL_AD_REASON_OFFSET) {
    const char* alert = SSL_alert_desc_string_long(reason - SSL_AD_REASON_OFFSET);
    return fail(TlsFailure::kRefusedByClient, std::string("the client sent the alert \"") + alert + "\"");
  }
  const char* words = code == 0 ? nullptr : ERR_reason_error_string(code);
  fail(TlsFailure::kViolation, words == nullptr ? "protocol error" : words);
}

}  // namespace fastserve
