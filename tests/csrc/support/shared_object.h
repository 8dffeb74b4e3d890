// A POSIX shared memory object as a client would make it, gone at the end. Header only.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/fd.h"

namespace fastserve {

class SharedObject {
 public:
  explicit SharedObject(std::size_t bytes) : key_(fresh_key()) {
    fd_ = UniqueFd(::shm_open(key_.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600));
    resize(bytes);
    const std::size_t mapped = bytes == 0 ? 1 : bytes;
    void* at = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
    EXPECT_NE(at, MAP_FAILED);
    memory_ = {static_cast<std::byte*>(at), bytes};
    mapped_ = mapped;
  }
  ~SharedObject() {
    ::munmap(memory_.data(), mapped_);
    ::shm_unlink(key_.c_str());
  }
  SharedObject(const SharedObject&) = delete;
  SharedObject& operator=(const SharedObject&) = delete;

  void resize(std::size_t bytes) { EXPECT_EQ(::ftruncate(fd_.get(), static_cast<off_t>(bytes)), 0); }
  const std::string& key() const { return key_; }
  // The client's own view; not behind a cut.
  std::span<std::byte> memory() { return memory_; }
  template <class T>
  T* as(std::size_t offset = 0) {
    return reinterpret_cast<T*>(memory_.data() + offset);
  }

 private:
  static std::string fresh_key() {
    static std::atomic<int> number{0};
    return "/fs-test-" + std::to_string(::getpid()) + "-" + std::to_string(number++);
  }

  const std::string key_;
  UniqueFd fd_;
  std::span<std::byte> memory_;
  std::size_t mapped_ = 0;
};

}  // namespace fastserve
