// Memory that two processes share without a name: a memfd (memfd_create(2)) that is sealed against shrinking, so that no access
// can end in SIGBUS, whatever the peer does. It travels by SCM_RIGHTS (local/unix_message.h).
// Thread: any; the object has one owner.
#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include "base/fd.h"
#include "base/status.h"

namespace fastserve {

class SealedMemory {
 public:
  SealedMemory() = default;
  SealedMemory(SealedMemory&& other) noexcept
      : fd_(std::move(other.fd_)), bytes_(std::exchange(other.bytes_, {})) {}
  SealedMemory& operator=(SealedMemory&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  SealedMemory(const SealedMemory&) = delete;
  SealedMemory& operator=(const SealedMemory&) = delete;
  ~SealedMemory();  // unmaps, closes

  // New, zero, mapped for reading and writing, sealed against any change of its size. `bytes` > 0.
  // RESOURCE_EXHAUSTED when there is no memory or no descriptor.
  static Result<SealedMemory> create(const char* name, std::size_t bytes);
  // A peer's: maps the whole of it. INVALID_ARGUMENT when it is no memfd, is not sealed against shrinking (F_SEAL_SHRINK),
  // may not be written, is made of huge pages (which can run out), is empty, or is larger than `most_bytes`.
  static Result<SealedMemory> adopt(UniqueFd fd, std::size_t most_bytes);

  int fd() const { return fd_.get(); }
  std::span<std::byte> bytes() const { return bytes_; }
  std::byte* data() const { return bytes_.data(); }
  std::size_t size() const { return bytes_.size(); }
  // The mapping stays, the descriptor goes.
  void close_fd() { fd_.reset(); }

 private:
  SealedMemory(UniqueFd fd, std::span<std::byte> bytes) : fd_(std::move(fd)), bytes_(bytes) {}
  static Result<SealedMemory> map(UniqueFd fd, std::size_t bytes);

  UniqueFd fd_;
  std::span<std::byte> bytes_;
};

}  // namespace fastserve
