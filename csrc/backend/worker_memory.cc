#include "backend/worker_memory.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/log.h"

namespace fastserve {
namespace {

constexpr std::size_t kLeastBlock = 64;
constexpr std::size_t kFirstSegment = std::size_t{4} << 20;
constexpr std::size_t kMostDoublings = 8;

std::size_t block_size(std::size_t bytes) { return std::bit_ceil(std::max(bytes, kLeastBlock)); }
std::size_t size_class(std::size_t block) { return static_cast<std::size_t>(std::countr_zero(block)); }

}  // namespace

std::byte* WorkerMemory::allocate(std::size_t bytes) {
  if (bytes > kMostBlockBytes) return nullptr;
  const std::size_t block = block_size(bytes);
  const std::lock_guard lock(mutex_);
  std::vector<std::byte*>& idle = idle_[size_class(block)];
  if (!idle.empty()) {
    std::byte* const memory = idle.back();
    idle.pop_back();
    return memory;
  }
  const std::size_t count = count_.load(std::memory_order_relaxed);
  if (count == 0 || segments_[count - 1].size() - used_ < block) {
    if (!grow(block)) return nullptr;
  }
  SealedMemory& segment = segments_[count_.load(std::memory_order_relaxed) - 1];
  return segment.data() + std::exchange(used_, used_ + block);
}

bool WorkerMemory::grow(std::size_t block_bytes) {
  const std::size_t count = count_.load(std::memory_order_relaxed);
  if (count == kMostSegments) return false;
  const std::size_t usual = kFirstSegment << std::min(count, kMostDoublings);
  auto made = SealedMemory::create("fastserve-worker", std::max(usual, block_bytes));
  if (!made.is_ok()) {
    log(LogLevel::kError, "no shared memory for workers: " + made.status().message());
    return false;
  }
  segments_[count] = std::move(made).value();
  used_ = 0;
  count_.store(count + 1, std::memory_order_release);  // partner: segments
  return true;
}

void WorkerMemory::free(std::byte* memory, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  idle_[size_class(block_size(bytes))].push_back(memory);
}

std::optional<WorkerMemory::Place> WorkerMemory::place_of(const std::byte* memory) const {
  for (std::size_t i = 0; i < segments(); ++i) {
    const std::byte* begin = segments_[i].data();
    if (memory < begin || memory >= begin + segments_[i].size()) continue;
    return Place{static_cast<std::uint32_t>(i), static_cast<std::uint64_t>(memory - begin)};
  }
  return std::nullopt;
}

WorkerBlock::WorkerBlock(std::shared_ptr<WorkerMemory> memory, std::byte* data, std::size_t bytes)
    : memory_(std::move(memory)), data_(data), bytes_(bytes), place_(*memory_->place_of(data)) {}

std::shared_ptr<WorkerBlock> WorkerBlock::make(std::shared_ptr<WorkerMemory> memory, std::size_t bytes) {
  std::byte* const data = memory->allocate(bytes);
  if (data == nullptr) return nullptr;
  return std::make_shared<WorkerBlock>(std::move(memory), data, bytes);
}

}  // namespace fastserve
