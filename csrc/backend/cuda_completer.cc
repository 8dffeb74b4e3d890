#include "backend/cuda_completer.h"

#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

#include <algorithm>
#include <string>
#include <utility>

#include "backend/cuda_device.h"
#include "backend/cuda_fault.h"
#include "backend/cuda_lanes.h"
#include "base/log.h"

namespace fastserve {
namespace {

// How often blocking lanes are looked at: the watchdog is late by so much.
constexpr Nanos kWatchNs = 50 * kMillisecond;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

std::string text_of_watchdog(Nanos watchdog_ns) {
  return "a batch has not ended within " + std::to_string(watchdog_ns / kMillisecond) +
         " ms (watchdog_ms): it hangs";
}

}  // namespace

Nanos PollRule::next(Nanos now, Nanos soonest_end, Nanos changed) {
  if (now < soonest_end - kSpinNs) return std::clamp(soonest_end - kSpinNs - now, kNapNs, kLongestNapNs);
  const Nanos since = now - std::max(soonest_end, changed);
  if (since < kSpinNs) return 0;
  if (since < kYieldNs) return kYield;
  return std::clamp(since / 32, kNapNs, kLongestNapNs);
}

CudaCompleter::CudaCompleter(CudaDevice& device) : device_(device), thread_([this] { loop(); }) {}

CudaCompleter::~CudaCompleter() {
  stopping_.store(true, std::memory_order_seq_cst);
  bell_.ring_all();
  thread_.join();
}

void CudaCompleter::add(CudaLane& lane) {
  if (added_.push(&lane)) bell_.ring();
}

void CudaCompleter::wake() { bell_.ring_all(); }

void CudaCompleter::watch(CudaLanes& lanes) {
  const std::lock_guard lock(watched_mutex_);
  watched_.push_back(&lanes);
  watched_count_.store(watched_.size(), std::memory_order_relaxed);
  bell_.ring_all();
}

void CudaCompleter::forget(CudaLanes& lanes) {
  const std::lock_guard lock(watched_mutex_);
  std::erase(watched_, &lanes);
  watched_count_.store(watched_.size(), std::memory_order_relaxed);
}

void CudaCompleter::loop() {
  ::pthread_setname_np(::pthread_self(), ("gpu" + std::to_string(device_.ordinal()) + "-done").c_str());
  ::prctl(PR_SET_TIMERSLACK, 1'000UL);  // ns: naps are of 20 us
  const CudaDevice::Current current(device_);
  for (;;) {
    const std::uint32_t ticket = bell_.ticket();
    take_new();
    if (device_.lost()) {
      empty();
    } else {
      const Nanos now = monotonic_now();
      look_at_all(now);
      look_at_watched(now);
    }
    if (flying_.empty() && added_.empty()) {
      if (stopping_.load(std::memory_order_seq_cst)) return;
      bell_.wait(ticket,
                 watched_count_.load(std::memory_order_relaxed) == 0 ? kNever : monotonic_now() + kWatchNs);
    } else if (!flying_.empty()) {
      rest(ticket);
    }
  }
}

void CudaCompleter::take_new() {
  for (CudaLane* lane = added_.take_all(); lane != nullptr; lane = lane->next_in_intake) {
    flying_.push_back(lane);
    changed_ = monotonic_now();
  }
}

// A lane leaves the list before it is landed: from then on it may be on its way again.
void CudaCompleter::look_at_all(Nanos now) {
  for (std::size_t i = 0; i < flying_.size();) {
    CudaLane& lane = *flying_[i];
    const CUresult result = lane.query();
    if (result == CUDA_ERROR_NOT_READY) {
      if (lane.overdue(now)) return device_.lose(hung(lane), lane.describe());
      ++i;
      continue;
    }
    if (result != CUDA_SUCCESS) return device_.lose(to_status(result, "cuEventQuery"), lane.describe());
    flying_.erase(flying_.begin() + static_cast<std::ptrdiff_t>(i));
    changed_ = now;
    if (lane.claim_landing()) lane.land();
  }
}

Status CudaCompleter::hung(const CudaLane& lane) {
  return {Code::kUnavailable, text_of_watchdog(lane.watchdog_ns())};
}

// Lanes whose waiter sleeps in the driver, and would for ever.
void CudaCompleter::look_at_watched(Nanos now) {
  if (watched_count_.load(std::memory_order_relaxed) == 0) return;
  const std::lock_guard lock(watched_mutex_);
  for (CudaLanes* lanes : watched_) {
    for (const auto& lane : lanes->lanes()) {
      // Whoever wins the claim may read the batch.
      if (!lane->overdue(now) || !lane->claim_landing()) continue;
      device_.lose(hung(*lane), lane->describe());
      lane->land_lost();
    }
  }
}

// The device is lost: nothing will end any more, so everybody is told.
void CudaCompleter::empty() {
  const std::string ran = device_.lost_batch();
  std::string also;
  const auto land = [&](CudaLane& lane) {
    if (!lane.claim_landing()) return;
    const std::string text = lane.describe();
    if (text != ran) also += (also.empty() ? "" : "; ") + text;
    lane.land_lost();
  };
  for (CudaLane* lane : flying_) land(*lane);
  flying_.clear();
  {
    const std::lock_guard lock(watched_mutex_);
    for (CudaLanes* lanes : watched_) {
      for (const auto& lane : lanes->lanes()) land(*lane);
    }
  }
  if (std::exchange(told_, true)) return;
  log(LogLevel::kError, device_.lost_status().message() + " (" + device_.uuid() + "); it ran " + ran +
                            (also.empty() ? "" : "; under way: " + also) +
                            "; its models answer UNAVAILABLE until the process is started again");
}

void CudaCompleter::rest(std::uint32_t ticket) {
  Nanos soonest = kNever;
  for (const CudaLane* lane : flying_) soonest = std::min(soonest, lane->expected_end());
  const Nanos now = monotonic_now();
  const Nanos pause = PollRule::next(now, soonest, changed_);
  if (pause == 0) return relax();
  if (pause == PollRule::kYield) {
    ::sched_yield();
    return;
  }
  bell_.wait(ticket, now + pause);
}

}  // namespace fastserve
