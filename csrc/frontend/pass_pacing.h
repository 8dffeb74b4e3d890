// When an I/O thread lets input gather before it reads. A client library that writes its calls one by one (gRPC's C++ and
// Python clients do) and is slower than this thread would be read one call at a time: a wake, a receive and a send each, which
// are two thirds of what such a call costs. A pause of some tens of microseconds lets several calls share them.
//
// It must not cost who waits for us. A pause is worth it while there is more to come anyway: input stood waiting when the
// last pass was through, the pause brought several requests, and behind them there was input waiting again. A pause that
// brought little, or after which nothing waited (the clients had nothing to send before our answers), is a miss: each miss in
// a row doubles the number of occasions that are let go by. So one call in flight never meets a pause, some calls on a few
// connections meet one in a thousand, and dense traffic meets one in each pass.
// Pure: time and counts are arguments. Thread: the owner's.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/clock.h"

namespace fastserve {

class PassPacing {
 public:
  static constexpr Nanos kPause = 50 * kMicrosecond;
  static constexpr Nanos kLongPause = 100 * kMicrosecond;     // after one that brought kMany
  static constexpr Nanos kLongestPause = 200 * kMicrosecond;  // after one that brought kVeryMany
  static constexpr std::uint64_t kMany = 5;
  static constexpr std::uint64_t kVeryMany = 8;
  static constexpr Nanos kAtOnce = 5 * kMicrosecond;  // a poller that has something returns within this
  static constexpr std::uint64_t kWorth = 3;          // requests that a pause must bring
  static constexpr std::uint64_t kEnough =
      32;  // requests of a pass that shares its wake among many by itself
  static constexpr std::uint32_t kMostLetGo = 1023;  // occasions, after misses

  // Before each pass. `waited`: how long the poller took. Not 0: sleep so long, poll again, then do the pass.
  Nanos pause_first(Nanos waited) {
    const bool at_once = waited < kAtOnce;
    const Nanos next = after_pass();
    if (paused_) judge(at_once && requests_ >= kWorth);
    paused_ = at_once && requests_ != 0 && requests_ < kEnough && (let_go_ == 0 || --let_go_ == 0);
    return paused_ ? next : 0;
  }
  // After each pass: the inference requests that it read.
  void passed(std::uint64_t requests) { requests_ = requests; }

 private:
  Nanos after_pass() const {
    if (!paused_ || requests_ < kMany) return kPause;
    return requests_ < kVeryMany ? kLongPause : kLongestPause;
  }
  void judge(bool hit) {
    misses_cost_ = hit ? 0 : std::min(2 * misses_cost_ + 1, kMostLetGo);
    let_go_ = misses_cost_;
  }

  std::uint64_t requests_ = 0;     // of the last pass
  std::uint32_t misses_cost_ = 0;  // occasions to let go by after the last miss
  std::uint32_t let_go_ = 0;       // that are left
  bool paused_ = false;            // before the last pass
};

}  // namespace fastserve
