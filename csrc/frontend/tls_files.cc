#include "frontend/tls_files.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "base/fd.h"
#include "memory/byte_buffer.h"

namespace fastserve {
namespace {

// A file's bytes; what may be a private key is wiped, not just freed.
class Secret {
 public:
  Secret() { bytes_.reserve(TlsFiles::kMaxFileBytes + 1); }  // never moved: no copy stays behind
  ~Secret() { ::explicit_bzero(bytes_.data(), bytes_.size()); }
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;

  Status read(const std::string& path) {
    if (path.empty()) return Status::ok();
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid()) return failed(path);
    while (bytes_.size() <= TlsFiles::kMaxFileBytes) {
      const std::size_t before = bytes_.size();
      const std::size_t room = TlsFiles::kMaxFileBytes + 1 - before;
      const ssize_t n = ::read(fd.get(), bytes_.extend(room), room);
      bytes_.truncate(before + static_cast<std::size_t>(n > 0 ? n : 0));
      if (n == 0) return Status::ok();
      if (n < 0 && errno != EINTR) return failed(path);
    }
    return invalid_argument(path + ": has more than " + std::to_string(TlsFiles::kMaxFileBytes) + " bytes");
  }
  std::string_view view() const { return bytes_.view(); }

 private:
  static Status failed(const std::string& path) {
    return invalid_argument(path + ": " + std::generic_category().message(errno));
  }
  ByteBuffer bytes_;
};

}  // namespace

Result<std::shared_ptr<TlsFiles>> TlsFiles::open(TlsPaths paths, TlsVersion min_version,
                                                 const TlsLimits& limits) {
  std::shared_ptr<TlsFiles> files(new TlsFiles(std::move(paths), min_version, limits));
  FS_RETURN_IF_ERROR(files->reload());
  return files;
}

Status TlsFiles::reload() {
  Secret certificates;
  Secret key;
  Secret client_ca;
  FS_RETURN_IF_ERROR(certificates.read(paths_.certificates));
  FS_RETURN_IF_ERROR(key.read(paths_.key));
  FS_RETURN_IF_ERROR(client_ca.read(paths_.client_ca));
  FS_ASSIGN_OR_RETURN(std::shared_ptr<const TlsConfiguration> made,
                      TlsConfiguration::make({{certificates.view(), paths_.certificates},
                                              {key.view(), paths_.key},
                                              {client_ca.view(), paths_.client_ca},
                                              min_version_}));
  const std::lock_guard lock(mutex_);
  current_.swap(made);
  return Status::ok();
}

std::shared_ptr<const TlsConfiguration> TlsFiles::current() const {
  const std::lock_guard lock(mutex_);
  return current_;
}

}  // namespace fastserve
