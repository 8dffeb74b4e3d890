// A number with one writer that any thread may read: no locked instruction, no torn value.
// Thread: add, subtract and set from the owner; get from any.
#pragma once

#include <atomic>
#include <cstdint>

namespace fastserve {

class Tally {
 public:
  void add(std::uint64_t n) { set(get() + n); }
  void subtract(std::uint64_t n) { set(get() - n); }
  void set(std::uint64_t value) { value_.store(value, std::memory_order_relaxed); }
  std::uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

}  // namespace fastserve
