// Certificates on disk, and what was last loaded from them. A listener has one; a connection takes current() when it opens and
// keeps it, so that open connections go on with what they started with.
// Thread: any. reload() may be called beside current(), not beside itself (its owner is the control plane's thread).
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "codec/tls_session.h"

namespace fastserve {

struct TlsPaths {
  std::string certificates;  // PEM, the server's own first
  std::string key;           // PEM, may be the same file
  std::string client_ca;     // PEM; "": clients need no certificate
};

class TlsFiles {
 public:
  static constexpr std::size_t kMaxFileBytes = std::size_t{1} << 20;

  // INVALID_ARGUMENT: `<path>: <reason>`.
  static Result<std::shared_ptr<TlsFiles>> open(TlsPaths paths, TlsVersion min_version,
                                                const TlsLimits& limits);

  // Reads the files again. When anything is wrong with them (half of them written, say) the old ones stay in use.
  Status reload();

  std::shared_ptr<const TlsConfiguration> current() const;
  const TlsLimits& limits() const { return limits_; }

 private:
  TlsFiles(TlsPaths paths, TlsVersion min_version, const TlsLimits& limits)
      : paths_(std::move(paths)), min_version_(min_version), limits_(limits) {}

  const TlsPaths paths_;
  const TlsVersion min_version_;
  const TlsLimits limits_;
  mutable std::mutex mutex_;  // once per connection: no need for anything cleverer
  std::shared_ptr<const TlsConfiguration> current_;
};

}  // namespace fastserve
