#include "engine/resident_memory.h"

#include <malloc.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <memory>

#include "base/clock.h"
#include "engine/memory_policies.h"

namespace fastserve {
namespace {

constexpr Nanos kTrimPauseNs = 50 * kMillisecond;

}  // namespace

std::int64_t resident_bytes() {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen("/proc/self/statm", "re"),
                                                             &std::fclose);
  long size = 0;
  long resident = 0;
  if (file == nullptr || std::fscanf(file.get(), "%ld %ld", &size, &resident) != 2) return 0;
  return static_cast<std::int64_t>(resident) * ::sysconf(_SC_PAGESIZE);
}

void limit_malloc_arenas(int most) { ::mallopt(M_ARENA_MAX, most); }

void give_memory_back() {
  static std::atomic<Nanos> next{0};  // relaxed: two trims at once do no harm
  const Nanos now = monotonic_now();
  if (now < next.load(std::memory_order_relaxed)) return;
  ::malloc_trim(0);
  forget_memory_policies();
  next.store(monotonic_now() + kTrimPauseNs, std::memory_order_relaxed);
}

}  // namespace fastserve
