#include "sched/instance_set.h"

#include "base/log.h"

namespace fastserve {

void InstanceSet::open(ModelQueue& queue) {
  queue_ = &queue;
  for (const auto& instance : instances_) instance->arena().trim();
  queue.instances.start = [this] { start_threads(); };
}

// By a ring, with or without a handle on the version: nothing of it is touched once it is stopped.
void InstanceSet::start_threads() {
  Status status;
  {
    const std::lock_guard lock(mutex_);
    if (stopped_ || started_ == instances_.size()) return;
    const Nanos now = monotonic_now();
    if (started_ != 0 && now < retry_at_) return;
    status = start_rest();
    retry_at_ = now + kSecond;
    if (status.is_ok()) queue_->instances.running.store(true, std::memory_order_release);
    if (status.is_ok() || started_ != 0) return;
  }
  queue_->refuse_waiting(status, Outcome::kBackend);
}

Status InstanceSet::start_rest() {
  const std::string& model = queue_->version().name;
  for (; started_ < instances_.size(); ++started_) {
    const std::string name = "fs" + std::to_string(started_) + "-" + model;
    Status status = instances_[started_]->start_thread(name, stack_bytes_);
    if (status.is_ok()) continue;
    log(LogLevel::kError, "model '" + model + "': " + status.message() + "; " + std::to_string(started_) +
                              " of " + std::to_string(instances_.size()) + " run");
    return status;
  }
  return Status::ok();
}

void InstanceSet::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  for (const auto& instance : instances_) instance->request_stop();
  if (queue_ != nullptr) queue_->bell.ring_all();
  for (const auto& instance : instances_) instance->join();
}

Instance* InstanceSet::claim_idle() {
  for (const auto& instance : instances_) {
    if (instance->try_claim_idle()) return instance.get();
  }
  return nullptr;
}

std::size_t InstanceSet::threads() const {
  const std::lock_guard lock(mutex_);
  return stopped_ ? 0 : started_;
}

void InstanceSet::set_stack_bytes(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  stack_bytes_ = bytes;
}

}  // namespace fastserve
