#include "local/sealed_memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace fastserve {
namespace {

Status refused(const std::string& why) { return {Code::kInvalidArgument, "shared memory: " + why}; }

Status exhausted(const char* what) {
  return {Code::kResourceExhausted, std::string("shared memory: ") + what + ": " + std::strerror(errno)};
}

}  // namespace

SealedMemory::~SealedMemory() {
  if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
}

Result<SealedMemory> SealedMemory::create(const char* name, std::size_t bytes) {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return exhausted("memfd_create");
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) return exhausted("ftruncate");
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return exhausted("sealing");
  return map(std::move(fd), bytes);
}

Result<SealedMemory> SealedMemory::adopt(UniqueFd fd, std::size_t most_bytes) {
  struct statfs system {};
  struct stat status {};
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0) return refused("got a descriptor that is no memfd");
  if (::fstatfs(fd.get(), &system) != 0 || system.f_type != TMPFS_MAGIC)
    return refused("got huge pages, want plain memory");
  if ((seals & F_SEAL_SHRINK) == 0) return refused("got a memfd without F_SEAL_SHRINK");
  if (::fstat(fd.get(), &status) != 0 || status.st_size <= 0) return refused("got an empty memfd");
  const auto bytes = static_cast<std::size_t>(status.st_size);
  if (bytes > most_bytes) {
    return refused("got " + std::to_string(bytes) + " bytes, want at most " + std::to_string(most_bytes));
  }
  auto mapped = map(std::move(fd), bytes);
  if (!mapped.is_ok() && (errno == EPERM || errno == EACCES))
    return refused("got a memfd that may not be written");
  return mapped;
}

Result<SealedMemory> SealedMemory::map(UniqueFd fd, std::size_t bytes) {
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) return exhausted("mmap");
  return SealedMemory(std::move(fd), {static_cast<std::byte*>(at), bytes});
}

}  // namespace fastserve
