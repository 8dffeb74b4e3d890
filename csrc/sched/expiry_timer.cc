#include "sched/expiry_timer.h"

#include <pthread.h>

#include <algorithm>
#include <system_error>

#include "base/log.h"
#include "sched/model_queue.h"

namespace fastserve {

bool lower(std::atomic<Nanos>& value, Nanos to) {
  Nanos current = value.load(std::memory_order_seq_cst);
  while (to < current) {
    if (value.compare_exchange_weak(current, to, std::memory_order_seq_cst)) return true;
  }
  return false;
}

ExpiryTimer::~ExpiryTimer() {
  stopping_.store(true, std::memory_order_seq_cst);
  bell_.ring_all();
  const std::lock_guard lock(thread_mutex_);
  if (thread_.joinable()) thread_.join();
}

void ExpiryTimer::add(ModelQueue& queue) {
  const std::lock_guard lock(queues_mutex_);
  queues_.push_back(&queue);
}

void ExpiryTimer::remove(ModelQueue& queue) {
  const std::lock_guard lock(queues_mutex_);
  std::erase(queues_, &queue);
}

void ExpiryTimer::wake_by(Nanos when) {
  if (!lower(next_, when)) return;
  if (!started()) start();
  bell_.ring();
}

void ExpiryTimer::start() {
  const std::lock_guard lock(thread_mutex_);
  if (thread_.joinable()) return;
  try {
    thread_ = std::thread([this] { run(); });
    ::pthread_setname_np(thread_.native_handle(), "fs-timer");
    started_.store(true, std::memory_order_release);
  } catch (const std::system_error& e) {
    // Deadlines are still looked at at dequeue and at reply; the next announcement tries again.
    next_.store(kNever, std::memory_order_seq_cst);
    log(LogLevel::kError, std::string("no thread for the expiry timer: ") + e.what());
  }
}

void ExpiryTimer::run() {
  for (;;) {
    const std::uint32_t ticket = bell_.ticket();
    if (stopping_.load(std::memory_order_seq_cst)) return;
    // Raised before the queues are looked at: whoever announces after the look lowers it again and rings.
    next_.store(kNever, std::memory_order_seq_cst);
    lower(next_, sweep(monotonic_now()));
    bell_.wait(ticket, next_.load(std::memory_order_seq_cst));
  }
}

Nanos ExpiryTimer::sweep(Nanos now) {
  const std::lock_guard lock(queues_mutex_);
  Nanos soonest = kNever;
  for (ModelQueue* queue : queues_) {
    const Nanos next = queue->next_expiry();
    soonest = std::min(soonest, next <= now ? queue->drop_expired(now) : next);
  }
  return soonest;
}

}  // namespace fastserve
