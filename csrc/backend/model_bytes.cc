#include "backend/model_bytes.h"

#include <string.h>  // explicit_bzero
#include <sys/mman.h>

#include <cstring>
#include <new>
#include <utility>

namespace fastserve {

WipedBytes::WipedBytes(std::span<const std::byte> source) : size_(source.size()) {
  if (size_ == 0) return;
  // Pages of its own: what is said about them concerns nobody else's memory.
  void* pages = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  madvise(pages, size_, MADV_DONTDUMP);  // a help only: without it the memory works as well
  data_ = static_cast<std::byte*>(pages);
  std::memcpy(data_, source.data(), size_);
}

WipedBytes::~WipedBytes() {
  if (data_ == nullptr) return;
  explicit_bzero(data_, size_);
  munmap(data_, size_);
}

ModelBytes::ModelBytes(std::span<const std::byte> model, std::span<const std::byte> weights)
    : parts_{std::make_shared<WipedBytes>(model),
             weights.empty() ? nullptr : std::make_shared<WipedBytes>(weights)} {}

ModelBytes::Parts ModelBytes::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(parts_, {});
}

}  // namespace fastserve
