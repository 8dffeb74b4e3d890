// Whether replies come from the version that they should, while versions come and go: `model_version` and content say the same
// number, and whoever asks after a version has answered for the first time never hears from an older one. For models whose first
// output begins with the number of their version as FP32, and whose versions only go up. No I/O. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "common/closed_loop.h"

namespace fastserve::bench {

class VersionCheck {
 public:
  // What is wrong with a successful reply; "" when nothing is.
  std::string fault(const Reply& reply, std::int64_t now_ns);

  std::uint64_t wrong() const { return wrong_; }
  std::size_t versions() const { return first_seen_ns_.size(); }

 private:
  std::map<std::int64_t, std::int64_t>
      first_seen_ns_;  // version -> when its first reply came; those that were late are not in it
  std::uint64_t wrong_ = 0;
};

}  // namespace fastserve::bench
