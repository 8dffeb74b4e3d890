#include "codec/tls_configuration.h"

#include <gtest/gtest.h>

#include <ctime>

#include "codec/tls_certificates.h"

namespace fastserve {
namespace {

using testing::Authority;
using testing::Pem;

class TlsConfigurationTest : public ::testing::Test {
 protected:
  static std::string error(const Pem& pem, const std::string& client_ca = "") {
    TlsIdentity identity{{pem.certificate, "cert.pem"}, {pem.key, "key.pem"}, {}, TlsVersion::k12};
    if (!client_ca.empty()) identity.client_ca = {client_ca, "ca.pem"};
    const auto made = TlsConfiguration::make(identity);
    EXPECT_TRUE(made.is_ok() || made.status().code() == Code::kInvalidArgument);
    return made.status().message();
  }

  Authority authority_{"test authority"};
  Pem good_ = authority_.issue("models.example");
};

TEST_F(TlsConfigurationTest, DescribesTheCertificate) {
  const auto made = TlsConfiguration::make({{good_.certificate, "c"}, {good_.key, "k"}, {}, TlsVersion::k12});
  ASSERT_TRUE(made.is_ok()) << made.status().message();
  const TlsCertificate& facts = (*made)->certificate();
  EXPECT_EQ(facts.subject, "CN=models.example");
  EXPECT_NEAR(static_cast<double>(facts.not_before_s), static_cast<double>(std::time(nullptr) - 60), 5);
  EXPECT_NEAR(static_cast<double>(facts.not_after_s), static_cast<double>(std::time(nullptr) + 3600), 5);
  EXPECT_EQ(facts.sha256.size(), 64U);
  EXPECT_FALSE((*made)->wants_client_certificate());
}

TEST_F(TlsConfigurationTest, TheChainEndsWithItsFirstToExpire) {
  const Pem brief = authority_.issue("intermediate", "serverAuth", -60, 100);
  const std::string chain = good_.certificate + brief.certificate;
  const auto made = TlsConfiguration::make({{chain, "c"}, {good_.key, "k"}, {}, TlsVersion::k12});
  ASSERT_TRUE(made.is_ok()) << made.status().message();
  EXPECT_EQ((*made)->certificate().subject, "CN=models.example");
  EXPECT_NEAR(static_cast<double>((*made)->certificate().not_after_s),
              static_cast<double>(std::time(nullptr) + 100), 5);
}

TEST_F(TlsConfigurationTest, KeyAndCertificateInOneFile) {
  const std::string both = good_.key + good_.certificate;
  EXPECT_EQ(error({both, both}), "");
}

TEST_F(TlsConfigurationTest, NamesTheFileAndTheReason) {
  EXPECT_EQ(error({"", good_.key}), "cert.pem: holds no certificate (want PEM, -----BEGIN CERTIFICATE-----)");
  EXPECT_EQ(error({good_.certificate, ""}),
            "key.pem: holds no private key (want PEM, -----BEGIN PRIVATE KEY-----)");
  EXPECT_EQ(error({good_.certificate, good_.certificate}),
            "key.pem: holds no private key (want PEM, -----BEGIN PRIVATE KEY-----)");
  EXPECT_EQ(error({good_.certificate, authority_.issue("other").key}),
            "key.pem: the private key does not belong to the first certificate of cert.pem");
  EXPECT_EQ(error(good_, "nothing"), "ca.pem: holds no certificate (want PEM, -----BEGIN CERTIFICATE-----)");
  EXPECT_EQ(error(good_, good_.certificate),
            "ca.pem: certificate number 1 is not that of an authority (CA:TRUE)");
  EXPECT_EQ(error(good_, authority_.pem()), "");
}

// A writer that is not through yet, or was killed.
TEST_F(TlsConfigurationTest, HalfWrittenFilesAreErrors) {
  for (std::size_t size = 0; size + 2 < good_.certificate.size(); ++size) {
    EXPECT_TRUE(error({good_.certificate.substr(0, size), good_.key}).starts_with("cert.pem: ")) << size;
  }
  for (std::size_t size = 0; size + 2 < good_.key.size(); ++size) {
    EXPECT_TRUE(error({good_.certificate, good_.key.substr(0, size)}).starts_with("key.pem: ")) << size;
  }
  const std::string chain = good_.certificate + authority_.pem();
  EXPECT_TRUE(
      error({chain.substr(0, chain.size() - 100), good_.key}).starts_with("cert.pem: certificate number 2"));
}

TEST_F(TlsConfigurationTest, AnEncryptedKeyIsNotAskedFor) {
  BIO* in = BIO_new_mem_buf(good_.key.data(), static_cast<int>(good_.key.size()));
  EVP_PKEY* key = PEM_read_bio_PrivateKey(in, nullptr, nullptr, nullptr);
  BIO* out = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(out, key, EVP_aes_128_cbc(), reinterpret_cast<const unsigned char*>("secret"), 6,
                           nullptr, nullptr);
  char* text = nullptr;
  const long size = BIO_get_mem_data(out, &text);
  const std::string encrypted(text, static_cast<std::size_t>(size));
  BIO_free(in);
  BIO_free(out);
  EVP_PKEY_free(key);
  EXPECT_TRUE(error({good_.certificate, encrypted}).starts_with("key.pem: the private key is encrypted"));
}

}  // namespace
}  // namespace fastserve
