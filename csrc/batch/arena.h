// The batches of one instance. It hands out empty ones and takes back what the last BatchRef releases; it grows on demand,
// so that an embedding program that keeps results cannot starve the instance, and frees the surplus when they come back.
//
// Ownership: counted. The instance holds one reference (close() gives it up), every batch that is out holds one; so results
// may outlive the instance and the model, and the last of them frees the rest.
// Thread: acquire by whoever holds the instance; batches return on any thread, without a lock.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "batch/batch.h"
#include "memory/host_allocator.h"
#include "queue/intake.h"
#include "tensor/signature.h"

namespace fastserve {

class BatchArena {
 public:
  // Keeps at most `keep` idle batches (the instance's depth and some more).
  BatchArena(const Signature& signature, HostAllocator& allocator,
             std::size_t keep);  // the allocator lives for ever
  BatchArena(const Signature& signature, std::shared_ptr<HostAllocator> allocator, std::size_t keep);
  BatchArena(const BatchArena&) = delete;
  BatchArena& operator=(const BatchArena&) = delete;

  Batch* acquire();  // empty; throws std::bad_alloc
  // Gives back a batch that was never run: nobody has a BatchRef to it.
  static void give_back(Batch& batch) { recycle(batch); }
  void trim();   // frees the idle batches; by whoever may acquire
  void close();  // the instance's end; batches that are out stay valid

  std::int64_t out() const { return references_.load(std::memory_order_relaxed) - 1; }  // batches handed out
  std::size_t idle() const { return idle_.size(); }  // by whoever may acquire

 private:
  ~BatchArena();
  static void recycle(Batch& batch);
  void release();
  void take_returned();

  const Signature signature_;  // a copy: batches may outlive the model
  const std::shared_ptr<HostAllocator> allocator_;
  const std::size_t keep_;
  std::vector<Batch*> idle_;
  Intake<Batch> returned_;
  std::atomic<std::int64_t> references_{1};  // acq_rel on release: who frees sees every return
};

}  // namespace fastserve
