// QueueLimits made ready for the hot path: which level a request belongs to, and when it has waited too long.
//
// Levels as in Triton (model_config.proto, ModelDynamicBatching): 1 is served first; a request that names none, or one beyond
// the levels, is of the default level. Here a model that says nothing about levels has 16, the default in the middle.
// Timeouts: a policy's own holds for every request of its level; a request's `timeout` may lower it where the policy lets
// it (`allow_timeout_override`), else it is ignored. Unlike in Triton it then also holds where the policy has no timeout.
// Thread: immutable.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "batch/request.h"
#include "batch/scheduling.h"

namespace fastserve {

inline constexpr std::uint32_t kPriorityLevels = 16;
inline constexpr std::uint32_t kMiddlePriority = kPriorityLevels / 2;

class QueueRules {
 public:
  QueueRules() : QueueRules(QueueLimits{}) {}
  explicit QueueRules(const QueueLimits& limits);

  std::uint32_t levels() const { return levels_; }
  std::uint32_t default_priority() const { return default_priority_; }
  // 0 .. levels() - 1, served in this order.
  std::size_t level_of(std::uint32_t priority) const {
    return (priority == 0 || priority > levels_ ? default_priority_ : priority) - 1;
  }
  const QueuePolicy& policy_of_level(std::size_t level) const { return policies_[policy_at_[level]]; }
  // Whether the level has a policy of its own, or there is one for all that says something.
  bool has_policy(std::size_t level) const;

  // When the request is no longer worth waiting for: its deadline, or when its time in the queue is over.
  Nanos expiry_of(const Request& request, Nanos now) const;

 private:
  std::uint32_t levels_ = kPriorityLevels;
  std::uint32_t default_priority_ = kMiddlePriority;
  std::array<std::uint8_t, kPriorityLevels> policy_at_{};  // level -> policies_
  std::vector<QueuePolicy> policies_;                      // the default one first
};

// INVALID_ARGUMENT with the field and the value, when a model asks for what there is not.
Status check_queue_limits(const QueueLimits& limits);

}  // namespace fastserve
