// Where larger batches stop paying: pure, fed with the warm-up's measurements in ascending order of rows.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/clock.h"

namespace fastserve {

class Plateau {
 public:
  // True: sizes above this one are not worth their memory, because the last two doublings served hardly more rows per second.
  // Not below 8 rows, because a busy machine makes single measurements lie.
  bool reached(std::int64_t rows, Nanos took) {
    constexpr double kGain = 1.03;
    constexpr std::int64_t kAlways = 8;
    const double rate = static_cast<double>(rows) / static_cast<double>(std::max<Nanos>(took, 1));
    without_gain_ = rate > kGain * best_ ? 0 : without_gain_ + 1;
    best_ = std::max(best_, rate);
    return rows >= kAlways && without_gain_ >= 2;
  }

 private:
  double best_ = 0;  // rows per nanosecond
  int without_gain_ = 0;
};

}  // namespace fastserve
