// Between tls_configuration.cc, which installs them, and tls_session.cc, which has them: OpenSSL's calls back to the session
// that is shaking hands. Private to codec/tls*.
#pragma once

#include <openssl/ssl.h>

#include <string>

namespace fastserve {

int tls_on_verify(int preverified, X509_STORE_CTX* store);
int tls_on_client_hello(SSL* native, int* alert, void*);
int tls_on_alpn(SSL* native, const unsigned char** out, unsigned char* out_size, const unsigned char* offered,
                unsigned int offered_size, void*);

std::string tls_name(const X509_NAME* name);  // "CN=a,O=b", RFC 2253

}  // namespace fastserve
