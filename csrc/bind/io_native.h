// What _io.pyx needs and Cython cannot write: a static_cast to an enum class, a span from a Python buffer, defaults of
// structs. Included by the module that Cython generates, and by nothing else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "base/status.h"
#include "frontend/io_loop.h"

namespace fastserve::bind {

inline Code code_of(int number) { return static_cast<Code>(number); }

inline std::uint64_t refused(const IoCounters& counters, int code) {
  return counters.refused_by_code[static_cast<std::size_t>(code)].get();
}

inline std::span<const std::byte> bytes_of(const void* data, std::size_t size) {
  return {static_cast<const std::byte*>(data), size};
}

// Null with `error` when the files cannot be used.
inline std::shared_ptr<TlsFiles> tls_open(const std::string& certificates, const std::string& key,
                                          const std::string& client_ca, bool only_13,
                                          double handshake_timeout_s, std::string& error) {
  TlsLimits limits;
  limits.handshake_timeout_ns = static_cast<Nanos>(handshake_timeout_s * 1e9);
  auto made =
      TlsFiles::open({certificates, key, client_ca}, only_13 ? TlsVersion::k13 : TlsVersion::k12, limits);
  if (made.is_ok()) return std::move(made).value();
  error = made.status().message();
  return nullptr;
}

inline std::string tls_reload(TlsFiles& files) { return files.reload().message(); }  // empty: done
inline TlsCertificate tls_certificate(const TlsFiles& files) { return files.current()->certificate(); }

inline std::string tls_failure(std::size_t number) {
  return std::string(tls_failure_name(static_cast<TlsFailure>(number)));
}

inline std::uint64_t tls_failed(const IoCounters& counters, std::size_t number) {
  return counters.tls_failures[number].get();
}

constexpr std::size_t kTlsFailureCount = kTlsFailures;

}  // namespace fastserve::bind
