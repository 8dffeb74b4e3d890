// Certificates for tests, made on the spot: an authority, and what it signs.
#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <string>

namespace fastserve::testing {

struct Pem {
  std::string certificate;
  std::string key;
};

class Authority {
 public:
  explicit Authority(const std::string& name) {
    key_ = EVP_EC_gen("P-256");
    certificate_ = make(name, key_, 0, 3600);
    X509_set_issuer_name(certificate_, X509_get_subject_name(certificate_));
    extend(certificate_, NID_basic_constraints, "critical,CA:TRUE");
    X509_sign(certificate_, key_, EVP_sha256());
  }
  ~Authority() {
    X509_free(certificate_);
    EVP_PKEY_free(key_);
  }
  Authority(const Authority&) = delete;
  Authority& operator=(const Authority&) = delete;

  std::string pem() const { return text(certificate_); }

  // Valid from `from_s` to `until_s`, counted from now. `usage`: serverAuth, clientAuth.
  Pem issue(const std::string& name, const char* usage = "serverAuth,clientAuth", long from_s = -60,
            long until_s = 3600, bool rsa = false) const {
    EVP_PKEY* key = rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
    X509* certificate = make(name, key, from_s, until_s);
    X509_set_issuer_name(certificate, X509_get_subject_name(certificate_));
    extend(certificate, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
    extend(certificate, NID_ext_key_usage, usage);
    X509_sign(certificate, key_, EVP_sha256());
    Pem out{text(certificate), text(key)};
    X509_free(certificate);
    EVP_PKEY_free(key);
    return out;
  }

 private:
  static X509* make(const std::string& name, EVP_PKEY* key, long from_s, long until_s) {
    static long serial = 1;
    X509* made = X509_new();
    X509_set_version(made, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made), serial++);
    X509_gmtime_adj(X509_getm_notBefore(made), from_s);
    X509_gmtime_adj(X509_getm_notAfter(made), until_s);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(made), "CN", MBSTRING_UTF8,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    X509_set_pubkey(made, key);
    return made;
  }
  static void extend(X509* certificate, int nid, const char* value) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value);
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }
  static std::string take(BIO* bio) {
    char* text = nullptr;
    const long size = BIO_get_mem_data(bio, &text);
    std::string out(text, static_cast<std::size_t>(size));
    BIO_free(bio);
    return out;
  }
  static std::string text(X509* certificate) {
    BIO* bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, certificate);
    return take(bio);
  }
  static std::string text(EVP_PKEY* key) {
    BIO* bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr);
    return take(bio);
  }

  EVP_PKEY* key_ = nullptr;
  X509* certificate_ = nullptr;
};

}  // namespace fastserve::testing
