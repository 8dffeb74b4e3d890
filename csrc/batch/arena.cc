#include "batch/arena.h"

#include <memory>
#include <utility>

namespace fastserve {

BatchArena::BatchArena(const Signature& signature, HostAllocator& allocator, std::size_t keep)
    : BatchArena(signature, std::shared_ptr<HostAllocator>(std::shared_ptr<void>(), &allocator), keep) {}

BatchArena::BatchArena(const Signature& signature, std::shared_ptr<HostAllocator> allocator, std::size_t keep)
    : signature_(signature), allocator_(std::move(allocator)), keep_(keep) {
  idle_.reserve(keep);
}

BatchArena::~BatchArena() {
  take_returned();
  for (Batch* batch : idle_) delete batch;
}

Batch* BatchArena::acquire() {
  if (idle_.empty()) take_returned();
  Batch* batch = nullptr;
  if (idle_.empty()) {
    auto fresh = std::make_unique<Batch>(signature_, *allocator_);
    fresh->arena = this;
    fresh->on_recycle = &recycle;
    batch = fresh.release();
  } else {
    batch = idle_.back();  // the one used last: its memory is warm
    idle_.pop_back();
  }
  batch->clear();
  references_.fetch_add(1, std::memory_order_relaxed);
  return batch;
}

void BatchArena::take_returned() {
  Batch* batch = returned_.take_all();
  while (batch != nullptr) {
    Batch* next = batch->next_in_intake;
    if (idle_.size() < keep_) {
      idle_.push_back(batch);
    } else {
      delete batch;
    }
    batch = next;
  }
}

void BatchArena::recycle(Batch& batch) {
  BatchArena& arena = *batch.arena;
  arena.returned_.push(&batch);
  arena.release();
}

void BatchArena::trim() {
  take_returned();
  for (Batch* batch : idle_) delete batch;
  idle_.clear();
}

void BatchArena::close() { release(); }

void BatchArena::release() {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

}  // namespace fastserve
