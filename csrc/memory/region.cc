#include "memory/region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "base/checked.h"
#include "base/fd.h"

namespace fastserve {
namespace {

constexpr std::size_t kMostEcho = 128;

// Objects in /dev/shm that are not tensors of a client: what servers keep there for themselves (a client that may write to
// it owns the server: CVE-2025-23319 and its like), and POSIX semaphores.
constexpr std::string_view kReservedPrefixes[] = {"triton_python_backend_shm_region_", "fastserve_", "sem."};

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }

Status cannot_open(const RegionSpec& spec, int error) {
  if (error == EMFILE || error == ENFILE || error == ENOMEM) {
    return {Code::kResourceExhausted, "Unable to open shared memory region: '" + shown(spec.key) +
                                          "': the server has no descriptors or memory left"};
  }
  return invalid_argument("Unable to open shared memory region: '" + shown(spec.key) + "'");
}

Status overflow(std::uint64_t offset, std::uint64_t bytes) {
  return invalid_argument("Integer overflow detected: byte size (" + std::to_string(bytes) + ") + offset (" +
                          std::to_string(offset) + ") exceeds " +
                          std::to_string(std::numeric_limits<std::uint64_t>::max()));
}

}  // namespace

std::string shown(std::string_view text) {
  std::string out(text.substr(0, kMostEcho));
  std::ranges::replace_if(out, is_control, '?');
  return out;
}

Status check_region_name(std::string_view name) {
  if (name.empty()) return invalid_argument("name: got none, want the name of a shared memory region");
  if (name.size() > kMaxRegionNameBytes) {
    return invalid_argument("name: got " + std::to_string(name.size()) + " bytes, want " +
                            std::to_string(kMaxRegionNameBytes) + " or fewer");
  }
  if (std::ranges::any_of(name, is_control)) {
    return invalid_argument("name: got '" + shown(name) + "', want no control characters");
  }
  return Status::ok();
}

Status check_region_key(std::string_view name, std::string_view key) {
  if (key.size() > kMaxRegionKeyBytes) {
    return invalid_argument("key: got " + std::to_string(key.size()) + " bytes, want " +
                            std::to_string(kMaxRegionKeyBytes) + " or fewer");
  }
  const std::string_view object = key.starts_with('/') ? key.substr(1) : key;
  if (object.empty() || object == "." || object == ".." || object.find('/') != std::string_view::npos ||
      std::ranges::any_of(object, is_control)) {
    return invalid_argument("key: got '" + shown(key) +
                            "', want a name with one slash in front and no other, as for shm_open");
  }
  for (const std::string_view reserved : kReservedPrefixes) {
    if (!object.starts_with(reserved)) continue;
    return invalid_argument("cannot register shared memory region '" + shown(name) + "' with key '" +
                            shown(key) + "' as the key contains the reserved prefix '" +
                            std::string(reserved) + "'");
  }
  return Status::ok();
}

Result<std::shared_ptr<Region>> Region::open(RegionSpec spec, RegionQuota::Share share) {
  FS_RETURN_IF_ERROR(check_region_name(spec.name));
  FS_RETURN_IF_ERROR(check_region_key(spec.name, spec.key));
  if (spec.bytes == 0) return invalid_argument("byte_size: got 0, want 1 or more");
  std::uint64_t end = 0;
  if (!checked_add(spec.offset, spec.bytes, end)) return overflow(spec.offset, spec.bytes);
  std::shared_ptr<Region> region(new Region(std::move(spec), std::move(share)));
  FS_RETURN_IF_ERROR(region->map());
  return region;
}

Result<std::shared_ptr<Region>> Region::open_on_device(RegionSpec spec, std::span<const std::byte> handle,
                                                       DeviceMemoryOpener& opener, RegionQuota::Share share) {
  FS_RETURN_IF_ERROR(check_region_name(spec.name));
  if (spec.bytes == 0) return invalid_argument("byte_size: got 0, want 1 or more");
  auto opened = opener.open(handle, spec.device);
  const auto failed = [&](Code code, const std::string& why) {
    return Status(code, "failed to register CUDA shared memory region: '" + shown(spec.name) + "': " + why);
  };
  if (!opened.is_ok()) return failed(opened.status().code(), opened.status().message());
  if (spec.bytes > (*opened)->bytes()) {
    return failed(Code::kInvalidArgument, "byte_size: got " + std::to_string(spec.bytes) + ", want " +
                                              std::to_string((*opened)->bytes()) +
                                              " or less, the size of the allocation");
  }
  std::shared_ptr<Region> region(new Region(std::move(spec), std::move(share)));
  region->device_ = std::move(*opened);
  region->begin_ = reinterpret_cast<std::byte*>(region->device_->address());  // a number to the CPU
  return region;
}

// The descriptor is closed again: a mapping needs none, and a look at the object's size before each use would say nothing about
// its size during the use.
Status Region::map() {
  // O_NONBLOCK: whatever stands under that name, opening it returns.
  const std::string path = spec_.key.starts_with('/') ? spec_.key : "/" + spec_.key;
  const UniqueFd fd(::shm_open(path.c_str(), O_RDWR | O_NONBLOCK, 0));
  if (!fd.valid()) return cannot_open(spec_, errno);
  struct stat object {};
  if (::fstat(fd.get(), &object) != 0) return cannot_open(spec_, errno);
  if (!S_ISREG(object.st_mode)) return cannot_open(spec_, EINVAL);
  const auto object_bytes = static_cast<std::uint64_t>(std::max<off_t>(object.st_size, 0));
  if (spec_.offset + spec_.bytes > object_bytes) {
    return invalid_argument("failed to register shared memory region '" + shown(spec_.name) +
                            "': invalid args: offset + byte_size: got " +
                            std::to_string(spec_.offset + spec_.bytes) + ", want " +
                            std::to_string(object_bytes) + " or less, the size of the object");
  }
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t from = spec_.offset / page * page;
  const std::uint64_t bytes = (spec_.offset + spec_.bytes - from + page - 1) / page * page;
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), static_cast<off_t>(from));
  if (at == MAP_FAILED) {
    return {Code::kResourceExhausted, "unable to map shared memory region: '" + shown(spec_.name) + "'"};
  }
  mapped_ = static_cast<std::byte*>(at);
  mapped_bytes_ = bytes;
  begin_ = mapped_ + (spec_.offset - from);
  range_ = GuardedRange(mapped_, mapped_bytes_);
  pinned_ = PinnedRange(pinned_ranges(), mapped_, mapped_bytes_);
  return Status::ok();
}

Region::~Region() {
  pinned_ = PinnedRange();
  range_ = GuardedRange();  // before somebody else gets the addresses
  if (mapped_ != nullptr) ::munmap(mapped_, mapped_bytes_);
}

Status Region::refusal() const {
  return invalid_argument("shared memory region '" + shown(spec_.name) +
                          "' was truncated by its owner, or the host has no room for it: unregister it");
}

Result<std::span<std::byte>> Region::at(std::uint64_t offset, std::uint64_t bytes) const {
  const auto of_region = [&] { return "shared memory region: '" + shown(spec_.name) + "': "; };
  if (offset >= spec_.bytes) {
    return invalid_argument("Invalid offset for " + of_region() + "got " + std::to_string(offset) +
                            ", want less than " + std::to_string(spec_.bytes));
  }
  std::uint64_t end = 0;
  if (!checked_add(offset, bytes, end)) return overflow(offset, bytes);
  if (end > spec_.bytes) {
    return invalid_argument("Invalid offset + byte size for " + of_region() + "got " +
                            std::to_string(offset) + " + " + std::to_string(bytes) + ", want " +
                            std::to_string(spec_.bytes) + " or less");
  }
  return std::span(begin_ + offset, bytes);
}

}  // namespace fastserve
