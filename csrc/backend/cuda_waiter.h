// Completion without polling (parameter completion=blocking): one thread per instance that sleeps in cuEventSynchronize, in the order
// in which the batches were started. It costs no CPU; a batch that overtakes another one is seen with that one.
// The device's completer stays the watchdog of these lanes.
// Thread: add from the starter; the rest on its own.
#pragma once

#include <atomic>
#include <thread>

#include "queue/doorbell.h"
#include "queue/intake.h"

namespace fastserve {

class CudaLane;
class CudaVersion;

class CudaWaiter {
 public:
  explicit CudaWaiter(const CudaVersion& version);
  ~CudaWaiter();  // nothing is flying; the device lives: on a lost one the thread may never come back, and all of it is kept
  void add(CudaLane& lane);
  void abandon() { thread_.detach(); }  // the device is lost: nobody will join it

 private:
  void loop();
  bool land(CudaLane& lane);

  const CudaVersion& version_;
  Intake<CudaLane> added_;
  Doorbell bell_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace fastserve
