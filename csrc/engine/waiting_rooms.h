// Models that sleep: wanted, and not loaded until somebody asks. A request to one is held in the model's waiting room until the
// model is awake, or refused at once; either way the model's name is told to whoever wakes it (a descriptor becomes readable).
//
//   set_asleep   before the model is unloaded: no request falls between the two
//   take         by submit, when no version of the model is ready
//   set_awake    when the load ended, well or not: what waited is submitted again, in order of arrival
//
// A room is a queue without instances (sched/model_queue.h): limits, deadlines, queue timeouts, cancellation and statistics are
// those of any queue. Rooms stay until the engine ends: answered requests may still hold handles on them.
// Thread: any. One mutex, which requests to loaded models never take.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "batch/served_version.h"
#include "engine/engine.h"
#include "sched/expiry_timer.h"
#include "sched/model_queue.h"

namespace fastserve {

class WaitingRooms;

class WaitingRoom final : public ServedVersion {
 public:
  WaitingRoom(WaitingRooms& rooms, const std::string& model, ExpiryTimer& timer);
  ~WaitingRoom();  // empty

  void notice_cancel() override { queue.notice_cancel(); }
  void leave(std::uint64_t bytes);  // a request waits here no more
  void wait_unused();               // no handle is left

  ModelQueue queue;
  std::atomic<std::int64_t> requests{0};
  std::atomic<std::uint64_t> bytes{0};

 private:
  WaitingRooms& rooms_;
};

class WaitingRooms {
 public:
  WaitingRooms(const ParkingLimits& limits, ExpiryTimer& timer);
  ~WaitingRooms();  // after close()
  WaitingRooms(const WaitingRooms&) = delete;
  WaitingRooms& operator=(const WaitingRooms&) = delete;

  void set_asleep(std::string_view model, const Sleep& sleep);
  // `reason` "": its load ended well. Submits what waited again; what is refused then is answered here.
  void set_awake(Engine& engine, std::string_view model, const std::string& reason);

  enum class Taken : std::uint8_t { kAwake, kParked, kRefused };
  // kRefused: `status` says why.
  Taken take(Request& request, Status& status);

  // What to say of a model none of whose versions can be had: `otherwise`, or UNAVAILABLE when it sleeps. `asks`: wakes it, too.
  Status asleep_or(std::string_view model, Status otherwise, bool asks);

  std::vector<std::string> take_asked();
  int asked_fd() const { return asked_fd_.get(); }
  ParkingTotals totals() const;
  void close(const Status& status);  // answers what waits with it; from here on nobody waits

 private:
  friend class WaitingRoom;
  struct Sleeper {
    std::unique_ptr<WaitingRoom> room;
    Sleep sleep;
    bool asleep = false;
    bool asked = false;
    Nanos asked_at = 0;  // where it was
  };
  void ask(Sleeper& sleeper);
  Status park(WaitingRoom& room, Request& request);
  Status check_room(const WaitingRoom& room, std::uint64_t bytes);
  void tell();

  const ParkingLimits limits_;
  ExpiryTimer& timer_;
  const UniqueFd asked_fd_;
  std::atomic<int> sleeping_{
      0};  // release when a model is awake, acquire by take: then its versions are seen, too
  std::atomic<std::int64_t> requests_{0};
  std::atomic<std::uint64_t> bytes_{0}, parked_{0}, refused_{0};
  mutable std::mutex mutex_;  // guards what follows
  std::map<std::string, Sleeper, std::less<>> sleepers_;
  bool closed_ = false;
};

}  // namespace fastserve
