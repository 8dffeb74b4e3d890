// The thread of a device that sees its batches end: it asks the driver for the event of each lane that is under way, answers what
// is done, and is the watchdog. It sleeps on a futex while nothing is under way, so an idle GPU costs no CPU.
//
// Lanes that block (parameter `completion`) have a thread of their own that sleeps in the driver (cuda_waiter.h); here they are
// only watched. A lost device is emptied here: everything that was under way is answered UNAVAILABLE.
// Thread: add, watch, forget and wake from any; the rest on its own thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "queue/doorbell.h"
#include "queue/intake.h"

namespace fastserve {

class CudaDevice;
class CudaLane;
class CudaLanes;

// How to wait until the next look. Pure.
struct PollRule {
  // Of a 2 us look: a batch that ends within this time is waited for without giving the CPU away.
  static constexpr Nanos kSpinNs = 50 * kMicrosecond;
  static constexpr Nanos kNapNs = 20 * kMicrosecond;
  // This long after the expected end the CPU is offered to others between looks; later still naps grow.
  static constexpr Nanos kYieldNs = kMillisecond;
  static constexpr Nanos kLongestNapNs = kMillisecond;

  // 0: look again at once. kYield: after the others on this CPU. Else: sleep for so long.
  static constexpr Nanos kYield = -1;
  // `soonest_end`: when the first of the batches under way is expected to end; `changed`: when one came or went.
  static Nanos next(Nanos now, Nanos soonest_end, Nanos changed);
};

class CudaCompleter {
 public:
  explicit CudaCompleter(CudaDevice& device);
  ~CudaCompleter();  // nothing is under way, or the device is lost

  void add(CudaLane& lane);  // its event is recorded
  void wake();
  void watch(CudaLanes& lanes);   // blocking lanes: deadlines and loss only
  void forget(CudaLanes& lanes);  // not while it looks at them: waits

 private:
  void loop();
  void take_new();
  void look_at_all(Nanos now);
  void look_at_watched(Nanos now);
  void empty();
  void rest(std::uint32_t ticket);
  static Status hung(const CudaLane& lane);

  CudaDevice& device_;
  Intake<CudaLane> added_;
  Doorbell bell_;
  std::vector<CudaLane*> flying_;  // own thread
  Nanos changed_ = 0;              // own thread: when one came or went
  bool told_ = false;              // own thread: of the loss, in the log
  std::mutex watched_mutex_;       // guards watched_
  std::vector<CudaLanes*> watched_;
  std::atomic<std::size_t> watched_count_{0};
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace fastserve
