// The instances of one version. Their threads start with the first ring of the queue, all at once, by whoever owes that ring: a
// model that nobody asks has no thread, and a model whose callers run every batch themselves never gets one.
//
// A system that gives no thread (EAGAIN): when not even one runs, what waits is answered UNAVAILABLE and the next ring tries
// again; when some run they serve alone, and a ring tries again once a second.
// Thread: as said. Lives as long as the queue, whose late ringers it refuses.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "sched/instance.h"
#include "sched/model_queue.h"

namespace fastserve {

class InstanceSet {
 public:
  explicit InstanceSet(std::size_t stack_bytes = 0) : stack_bytes_(stack_bytes) {}
  InstanceSet(const InstanceSet&) = delete;
  InstanceSet& operator=(const InstanceSet&) = delete;

  // --- loader thread, in this order
  void add(std::unique_ptr<Instance> instance) { instances_.push_back(std::move(instance)); }
  std::span<const std::unique_ptr<Instance>> all() const { return instances_; }
  void open(ModelQueue& queue);  // warm: from here on a ring starts the threads. Frees what the warm-up used
  void stop();                   // nothing is admitted nor runs: no thread any more, and none will start
  void clear() { instances_.clear(); }

  // --- submitters that hold a handle on the version. nullptr: all busy; else run_claimed() must follow.
  Instance* claim_idle();

  std::size_t threads() const;              // that run; any thread
  void set_stack_bytes(std::size_t bytes);  // of threads that start from now on; 0: the system's size

 private:
  void start_threads();
  Status start_rest();

  ModelQueue* queue_ = nullptr;
  std::vector<std::unique_ptr<Instance>> instances_;
  mutable std::mutex mutex_;  // guards what follows
  std::size_t stack_bytes_;
  std::size_t started_ = 0;  // the first so many
  Nanos retry_at_ = 0;
  bool stopped_ = false;
};

}  // namespace fastserve
