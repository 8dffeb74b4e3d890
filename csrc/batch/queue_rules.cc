#include "batch/queue_rules.h"

#include <algorithm>
#include <string>

namespace fastserve {
namespace {

Status out_of_range(const std::string& field, std::int64_t got, std::int64_t least, std::int64_t most) {
  return invalid_argument(field + ": got " + std::to_string(got) + ", want " + std::to_string(least) +
                          " to " + std::to_string(most));
}

Status check_policy(const std::string& field, const QueuePolicy& policy) {
  if (policy.timeout_ns < 0)
    return invalid_argument(field + ".default_timeout_microseconds: got " +
                            std::to_string(policy.timeout_ns / kMicrosecond) + ", want 0 or more");
  if (policy.max_requests < 0)
    return invalid_argument(field + ".max_queue_size: got " + std::to_string(policy.max_requests) +
                            ", want 0 or more");
  return Status::ok();
}

}  // namespace

Status check_queue_limits(const QueueLimits& limits) {
  if (limits.priority_levels > kPriorityLevels)
    return out_of_range("priority_levels", limits.priority_levels, 0, kPriorityLevels);
  const std::uint32_t levels = limits.priority_levels == 0 ? kPriorityLevels : limits.priority_levels;
  if (limits.default_priority > levels)
    return out_of_range("default_priority_level", limits.default_priority, 1, levels);
  FS_RETURN_IF_ERROR(check_policy("default_queue_policy", limits.default_policy));
  for (const auto& [priority, policy] : limits.by_priority) {
    const std::string field = "priority_queue_policy[" + std::to_string(priority) + "]";
    if (priority == 0 || priority > levels) return out_of_range(field + ".key", priority, 1, levels);
    FS_RETURN_IF_ERROR(check_policy(field, policy));
  }
  return Status::ok();
}

QueueRules::QueueRules(const QueueLimits& limits) : policies_{limits.default_policy} {
  if (limits.priority_levels != 0) levels_ = std::min(limits.priority_levels, kPriorityLevels);
  default_priority_ = limits.default_priority != 0 ? limits.default_priority : (levels_ + 1) / 2;
  default_priority_ = std::min(default_priority_, levels_);
  for (const auto& [priority, policy] : limits.by_priority) {
    if (priority == 0 || priority > levels_) continue;
    policy_at_[priority - 1] = static_cast<std::uint8_t>(policies_.size());
    policies_.push_back(policy);
  }
}

bool QueueRules::has_policy(std::size_t level) const {
  const QueuePolicy& policy = policy_of_level(level);
  return policy_at_[level] != 0 || policy.timeout_ns != 0 || policy.max_requests != 0 ||
         !policy.request_may_lower || policy.on_timeout == QueuePolicy::OnTimeout::kDelay;
}

Nanos QueueRules::expiry_of(const Request& request, Nanos now) const {
  const QueuePolicy& policy = policy_of_level(level_of(request.priority));
  Nanos timeout = policy.timeout_ns;
  const Nanos own = request.queue_timeout_ns;
  if (policy.request_may_lower && own > 0 && (timeout == 0 || own < timeout)) timeout = own;
  if (timeout <= 0 || timeout > kNever - now) return request.deadline;
  return std::min(request.deadline, now + timeout);
}

}  // namespace fastserve
