// Memory "of a GPU" for tests without one: addresses that the CPU faults on, so that whoever follows them is found, and bytes
// behind them that only read() and write() reach.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "memory/device_memory.h"

namespace fastserve {

class DeviceMemoryDouble final : public DeviceMemory {
 public:
  DeviceMemoryDouble(int device, std::size_t bytes)
      : content(bytes),
        device_(device),
        at_(static_cast<std::byte*>(
            ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {}
  ~DeviceMemoryDouble() override { ::munmap(at_, content.size()); }
  DeviceMemoryDouble(const DeviceMemoryDouble&) = delete;
  DeviceMemoryDouble& operator=(const DeviceMemoryDouble&) = delete;

  int device() const override { return device_; }
  std::uint64_t address() const override { return reinterpret_cast<std::uint64_t>(at_); }
  std::uint64_t bytes() const override { return content.size(); }
  Status read(std::byte* to, const std::byte* at, std::size_t bytes) override {
    ++reads;
    if (lost) return unavailable("the GPU is lost");
    std::memcpy(to, content.data() + (at - at_), bytes);
    return Status::ok();
  }
  Status write(std::byte* at, const std::byte* from, std::size_t bytes) override {
    ++writes;
    if (lost) return unavailable("the GPU is lost");
    std::memcpy(content.data() + (at - at_), from, bytes);
    return Status::ok();
  }

  template <class T>
  std::vector<T> values(std::size_t offset, std::size_t count) const {
    std::vector<T> out(count);
    std::memcpy(out.data(), content.data() + offset, count * sizeof(T));
    return out;
  }
  template <class T>
  void put(std::size_t offset, const std::vector<T>& values) {
    std::memcpy(content.data() + offset, values.data(), values.size() * sizeof(T));
  }

  std::vector<std::byte> content;
  std::atomic<int> reads{0}, writes{0};
  std::atomic<bool> lost{false};

 private:
  const int device_;
  std::byte* const at_;
};

// Handles are names of allocations that the test made.
class OpenerDouble final : public DeviceMemoryOpener {
 public:
  DeviceMemoryDouble& allocate(const std::string& handle, std::size_t bytes, int device = 0) {
    auto made = std::make_shared<DeviceMemoryDouble>(device, bytes);
    by_handle_[handle] = made;
    return *made;
  }
  Result<std::shared_ptr<DeviceMemory>> open(std::span<const std::byte> handle, int device) override {
    const auto found = by_handle_.find({reinterpret_cast<const char*>(handle.data()), handle.size()});
    if (found == by_handle_.end()) return invalid_argument("raw_handle: got one that does not open");
    if (found->second->device() != device) return invalid_argument("device_id: got another");
    return std::shared_ptr<DeviceMemory>(found->second);
  }
  long uses(const std::string& handle) const { return by_handle_.at(handle).use_count() - 1; }

 private:
  std::map<std::string, std::shared_ptr<DeviceMemoryDouble>> by_handle_;
};

inline std::span<const std::byte> handle_bytes(std::string_view handle) {
  return std::as_bytes(std::span(handle));
}

}  // namespace fastserve
