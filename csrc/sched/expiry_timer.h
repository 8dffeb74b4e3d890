// Answers waiting requests whose deadline or queue timeout passed, or whose owner cancelled them, while every instance is
// busy or nothing else happens. One thread per engine, started by the first request that can expire.
//
// It sleeps until the earliest expiry that anybody announced; announcing a later one costs two loads.
// Thread: any thread may call; add and remove block while a sweep runs, so a removed queue is not touched afterwards.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "queue/doorbell.h"

namespace fastserve {

class ModelQueue;

class ExpiryTimer {
 public:
  ExpiryTimer() = default;
  ~ExpiryTimer();
  ExpiryTimer(const ExpiryTimer&) = delete;
  ExpiryTimer& operator=(const ExpiryTimer&) = delete;

  void add(ModelQueue& queue);
  void remove(ModelQueue& queue);
  // Sweep at `when` at the latest. The queue's own next_expiry() was lowered before.
  void wake_by(Nanos when);

  bool started() const { return started_.load(std::memory_order_acquire); }

 private:
  void start();
  void run();
  Nanos sweep(Nanos now);

  Doorbell bell_;
  std::atomic<Nanos> next_{
      kNever};  // seq_cst: lowered by wake_by before it rings, raised by run before it looks
  std::atomic<bool> stopping_{false};
  std::atomic<bool> started_{false};
  std::mutex queues_mutex_;  // guards queues_
  std::vector<ModelQueue*> queues_;
  std::mutex thread_mutex_;  // guards thread_
  std::thread thread_;
};

// Lowers `value` to `to`; whether it did. seq_cst on success and on the look.
bool lower(std::atomic<Nanos>& value, Nanos to);

}  // namespace fastserve
