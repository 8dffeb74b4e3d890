// Reads and writes numbers and texts in a buffer, one after the other, in the byte order of the machine: both sides of a Unix
// socket are one machine. Never reads or writes past the end; afterwards ok() says whether everything was there (or had room).
// Thread: value types.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

namespace fastserve {

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  // Zero when it is cut off.
  template <class T>
  T take() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    if (!has(sizeof(T))) return value;
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  // A view into the buffer; empty when it is cut off.
  std::string_view text(std::size_t bytes) {
    if (!has(bytes)) return {};
    const std::string_view found(reinterpret_cast<const char*>(bytes_.data() + at_), bytes);
    at_ += bytes;
    return found;
  }
  bool ok() const { return ok_; }
  std::size_t left() const { return bytes_.size() - at_; }

 private:
  bool has(std::size_t bytes) {
    ok_ = ok_ && bytes <= bytes_.size() - at_;
    return ok_;
  }

  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
  bool ok_ = true;
};

class ByteWriter {
 public:
  explicit ByteWriter(std::span<std::byte> bytes) : bytes_(bytes) {}

  template <class T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    write(&value, sizeof(T));
  }
  void text(std::string_view text) { write(text.data(), text.size()); }
  bool ok() const { return ok_; }
  std::size_t size() const { return at_; }  // written so far

 private:
  void write(const void* from, std::size_t bytes) {
    ok_ = ok_ && bytes <= bytes_.size() - at_;
    if (!ok_ || bytes == 0) return;
    std::memcpy(bytes_.data() + at_, from, bytes);
    at_ += bytes;
  }

  std::span<std::byte> bytes_;
  std::size_t at_ = 0;
  bool ok_ = true;
};

}  // namespace fastserve
