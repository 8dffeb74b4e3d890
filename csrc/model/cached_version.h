// What the response cache (engine/response_cache.h) keeps for one version; a version without one is never looked up.
// Thread: counting and reading from any.
#pragma once

#include "base/cache_line.h"
#include "base/clock.h"
#include "base/histogram.h"

namespace fastserve {

class CachedVersion {
 public:
  virtual ~CachedVersion() = default;

  // As Triton's statistics extension has them: requests, and the time of looking up (a miss: and of inserting).
  alignas(kCacheLine) Counter hits{0};
  Counter hit_ns{0};
  Counter misses{0};
  Counter miss_ns{0};
};

}  // namespace fastserve
