#include "backend/quiet_time.h"

#include <chrono>
#include <utility>

namespace fastserve {
namespace {

constexpr Nanos kIdleWindow = 50 * kMillisecond;

std::timed_mutex& one_at_a_time() {
  static std::timed_mutex mutex;
  return mutex;
}

}  // namespace

QuietTime::QuietTime(std::unique_lock<std::timed_mutex> lock, double most_wait, Nanos most_ns)
    : lock_(std::move(lock)),
      most_wait_(most_wait),
      most_ns_(most_ns),
      began_(monotonic_now()),
      runs_(CpuBudget::process().runs()),
      wait_(cpu_wait()) {}

std::optional<QuietTime> QuietTime::begin(const TuneSettings& settings, Nanos most_ns) {
  std::unique_lock lock(one_at_a_time(), std::chrono::nanoseconds(settings.most_ns));
  if (!lock.owns_lock() || !CpuBudget::process().idle_for(kIdleWindow)) return std::nullopt;
  return QuietTime(std::move(lock), settings.most_wait, most_ns);
}

bool QuietTime::machine_is_busy() const {
  const CpuWait now = cpu_wait();
  return static_cast<double>(now.waited - wait_.waited) >
         most_wait_ * static_cast<double>(now.ran - wait_.ran);
}

}  // namespace fastserve
