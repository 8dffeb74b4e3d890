#include "batch/queue_rules.h"

#include <gtest/gtest.h>

namespace fastserve {
namespace {

using OnTimeout = QueuePolicy::OnTimeout;

QueuePolicy policy(Nanos timeout, bool may_lower = false, std::int64_t most = 0) {
  return {OnTimeout::kReject, timeout, may_lower, most};
}

// Of a request of the default level that arrives at 1000.
Nanos expiry(const QueueRules& rules, Nanos timeout, Nanos deadline = kNever) {
  Request request;
  request.queue_timeout_ns = timeout;
  request.deadline = deadline;
  return rules.expiry_of(request, 1000);
}

TEST(QueueRules, WithoutLevelsRequestsUse1To16AndTheMiddle) {
  const QueueRules rules;
  EXPECT_EQ(rules.levels(), 16U);
  EXPECT_EQ(rules.default_priority(), 8U);
  EXPECT_EQ(rules.level_of(1), 0U);
  EXPECT_EQ(rules.level_of(16), 15U);
  EXPECT_EQ(rules.level_of(0), 7U) << "none named";
  EXPECT_EQ(rules.level_of(17), 7U) << "beyond the levels: the default, as Triton";
  for (std::size_t level = 0; level < 16; ++level) EXPECT_FALSE(rules.has_policy(level));
}

TEST(QueueRules, BeyondTheModelsLevelsTakesItsDefault) {
  QueueLimits limits;
  limits.priority_levels = 3;
  limits.default_priority = 2;
  const QueueRules rules(limits);
  EXPECT_EQ(rules.level_of(3), 2U);
  EXPECT_EQ(rules.level_of(4), 1U);
  EXPECT_EQ(rules.level_of(0), 1U);
  limits.default_priority = 0;
  EXPECT_EQ(QueueRules(limits).default_priority(), 2U);
  limits.priority_levels = 1;
  EXPECT_EQ(QueueRules(limits).default_priority(), 1U);
}

TEST(QueueRules, EachLevelHasItsPolicyElseTheDefaultOne) {
  QueueLimits limits;
  limits.default_policy = policy(100, true, 7);
  limits.by_priority[2] = policy(50);
  const QueueRules rules(limits);
  EXPECT_EQ(rules.policy_of_level(0).max_requests, 7);
  EXPECT_EQ(rules.policy_of_level(1).max_requests, 0);
  EXPECT_EQ(rules.policy_of_level(1).timeout_ns, 50);
  EXPECT_TRUE(rules.has_policy(1));
}

// No timeout written, one written that may be lowered, one that may not.
TEST(QueueRules, ATimeoutMayOnlyBeLoweredAndOnlyWhereThePolicySaysSo) {
  struct Row {
    QueuePolicy policy;
    Nanos own, want;
  };
  const Row rows[] = {
      {policy(0, true), 0, kNever},
      {policy(0, true), 30, 1030},     // no policy: the parameter holds by itself
      {policy(0, false), 30, kNever},  // a policy without override: ignored
      {policy(100, true), 0, 1100},
      {policy(100, true), 99, 1099},  // lowered
      {policy(100, true), 100, 1100},
      {policy(100, true), 101, 1100},  // never raised
      {policy(100, false), 30, 1100},
      {policy(100, true), -5, 1100},
      {policy(kNever, true), 0, kNever},  // further than the clock reaches
      {policy(kNever - 1000, true), 0, kNever},
      {policy(0, true), kNever, kNever},
  };
  for (const Row& row : rows) {
    QueueLimits limits;
    limits.default_policy = row.policy;
    EXPECT_EQ(expiry(QueueRules(limits), row.own), row.want) << row.policy.timeout_ns << " " << row.own;
  }
}

TEST(QueueRules, TheDeadlineHoldsWhateverThePolicySays) {
  QueueLimits limits;
  limits.default_policy = policy(100);
  const QueueRules rules(limits);
  EXPECT_EQ(expiry(rules, 0, 1050), 1050);
  EXPECT_EQ(expiry(rules, 0, 5000), 1100);
}

TEST(QueueRules, RefusesWhatThereIsNotAndNamesIt) {
  const auto refused = [](const QueueLimits& limits) { return check_queue_limits(limits).message(); };
  QueueLimits limits;
  limits.priority_levels = 16;
  limits.default_priority = 16;
  limits.by_priority[16] = policy(1);
  EXPECT_EQ(refused(limits), "");
  limits.priority_levels = 17;
  EXPECT_EQ(refused(limits), "priority_levels: got 17, want 0 to 16");
  limits.priority_levels = 15;
  EXPECT_EQ(refused(limits), "default_priority_level: got 16, want 1 to 15");
  limits.default_priority = 15;
  EXPECT_EQ(refused(limits), "priority_queue_policy[16].key: got 16, want 1 to 15");
  limits.by_priority.clear();
  limits.by_priority[0] = policy(1);
  EXPECT_EQ(refused(limits), "priority_queue_policy[0].key: got 0, want 1 to 15");
  limits.by_priority.clear();
  limits.by_priority[3] = policy(1, false, -1);
  EXPECT_EQ(refused(limits), "priority_queue_policy[3].max_queue_size: got -1, want 0 or more");
  limits.by_priority.clear();
  limits.default_policy.timeout_ns = -2000;
  EXPECT_EQ(refused(limits), "default_queue_policy.default_timeout_microseconds: got -2, want 0 or more");
}

}  // namespace
}  // namespace fastserve
