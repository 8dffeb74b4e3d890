#include "batch/pending_set.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <random>

namespace fastserve {
namespace {

class PendingSetTest : public ::testing::Test {
 protected:
  Request& add(std::uint32_t priority, Nanos expires = kNever, PendingSet* to = nullptr) {
    Request& request = requests_.emplace_back();
    request.priority = priority;
    request.expires = expires;
    request.owner_tag = requests_.size();
    request.times.enqueued = static_cast<Nanos>(requests_.size());
    (to != nullptr ? *to : set_).add(request);
    return request;
  }
  std::vector<std::uint64_t> order() const {
    std::vector<std::uint64_t> out;
    for (const Request* r = set_.first(); r != nullptr; r = set_.next(*r)) out.push_back(r->owner_tag);
    return out;
  }
  static std::vector<std::uint64_t> tags(const Request* list) {
    std::vector<std::uint64_t> out;
    for (; list != nullptr; list = list->next_in_intake) out.push_back(list->owner_tag);
    return out;
  }

  static QueueLimits delaying(std::uint32_t priority) {
    QueueLimits limits;
    limits.by_priority[priority].on_timeout = QueuePolicy::OnTimeout::kDelay;
    return limits;
  }

  std::deque<Request> requests_;
  const QueueRules rules_;
  PendingSet set_{rules_};
};

using Tags = std::vector<std::uint64_t>;

TEST_F(PendingSetTest, PriorityFirstThenArrival) {
  add(0);       // 1: the middle
  add(16);      // 2: last
  add(1);       // 3: first
  add(0);       // 4
  add(1);       // 5
  add(40'000);  // 6: beyond the levels, so as 1
  EXPECT_EQ(order(), (Tags{3, 5, 1, 4, 6, 2}));
  EXPECT_EQ(set_.size(), 6U);
  EXPECT_EQ(set_.oldest_enqueued(), 1);
}

TEST_F(PendingSetTest, ModelDefaultPriority) {
  QueueLimits limits;
  limits.default_priority = 2;
  const QueueRules rules(limits);
  PendingSet set(rules);
  add(3, kNever, &set);
  add(0, kNever, &set);
  EXPECT_EQ(set.first()->owner_tag, 2U);
}

TEST_F(PendingSetTest, RemovesFromTheMiddle) {
  add(0);
  Request& middle = add(0);
  add(0);
  set_.remove(middle);
  EXPECT_EQ(order(), (Tags{1, 3}));
  set_.remove(*set_.first());
  set_.remove(*set_.first());
  EXPECT_TRUE(set_.empty());
  EXPECT_EQ(set_.first(), nullptr);
  EXPECT_EQ(set_.oldest_enqueued(), kNever);
}

TEST_F(PendingSetTest, ExpiryTakesExactlyWhatIsDueEarliestFirst) {
  add(0, 30);
  add(1, 10);
  add(0);
  add(0, 20);
  EXPECT_EQ(set_.earliest_expiry(), 10);
  EXPECT_EQ(set_.take_expired(9), nullptr);
  EXPECT_EQ(tags(set_.take_expired(20)), (Tags{2, 4}));
  EXPECT_EQ(order(), (Tags{1, 3}));
  EXPECT_EQ(set_.earliest_expiry(), 30);
  EXPECT_EQ(tags(set_.take_expired(kNever)), (Tags{1})) << "what cannot expire stays";
}

TEST_F(PendingSetTest, OldestWhateverItsLevel) {
  EXPECT_EQ(set_.oldest(), nullptr);
  add(3);
  add(1);
  add(16);
  EXPECT_EQ(set_.oldest()->owner_tag, 1U);
  set_.remove(*set_.oldest());
  EXPECT_EQ(set_.oldest()->owner_tag, 2U);
  set_.remove(*set_.oldest());
  EXPECT_EQ(set_.oldest()->owner_tag, 3U);
}

TEST_F(PendingSetTest, WhatTimedOutIsServedAfterTheRestOfItsLevel) {
  const QueueRules rules(delaying(2));
  PendingSet set(rules);
  add(2, 30, &set);      // 1
  add(2, 10, &set);      // 2
  add(2, kNever, &set);  // 3
  add(3, kNever, &set);  // 4
  EXPECT_EQ(set.take_expired(10), nullptr);
  add(2, kNever, &set);  // 5
  EXPECT_EQ(set.take_expired(30), nullptr);
  Tags got;
  for (const Request* r = set.first(); r != nullptr; r = set.next(*r)) got.push_back(r->owner_tag);
  EXPECT_EQ(got, (Tags{3, 5, 2, 1, 4}));
  EXPECT_EQ(set.size(), 5U);
  EXPECT_EQ(set.earliest_expiry(), kNever) << "they wait as long as it takes";
  EXPECT_EQ(tags(set.take_all()), (Tags{3, 5, 2, 1, 4}));
}

TEST_F(PendingSetTest, ADelayedRequestKeepsItsDeadline) {
  const QueueRules rules(delaying(8));
  PendingSet set(rules);
  Request& request = add(8, 10, &set);
  request.deadline = 50;
  EXPECT_EQ(set.take_expired(10), nullptr);
  EXPECT_EQ(set.earliest_expiry(), 50);
  EXPECT_EQ(set.take_expired(49), nullptr);
  EXPECT_EQ(set.take_expired(50), &request);
  EXPECT_TRUE(set.empty());
}

TEST_F(PendingSetTest, ALateLookTakesWhatIsBeyondItsDeadlineToo) {
  const QueueRules rules(delaying(8));
  PendingSet set(rules);
  Request& request = add(8, 10, &set);
  request.deadline = 50;
  Request& gone = add(8, 10, &set);
  gone.cancel();
  EXPECT_EQ(tags(set.take_expired(60)).size(), 2U);
}

TEST_F(PendingSetTest, TakesWhatWasCancelled) {
  add(0).cancel();
  add(1);
  add(2).cancel();
  EXPECT_EQ(tags(set_.take_cancelled()), (Tags{3, 1}));
  EXPECT_EQ(order(), (Tags{2}));
}

TEST_F(PendingSetTest, TakeAllEmptiesInServingOrder) {
  add(3, 5);
  add(1);
  EXPECT_EQ(tags(set_.take_all()), (Tags{2, 1}));
  EXPECT_TRUE(set_.empty());
  EXPECT_EQ(set_.earliest_expiry(), kNever);
}

// Against a model: a map from expiry to requests.
TEST_F(PendingSetTest, HeapStaysRightUnderRandomUse) {
  std::mt19937 random(7);
  std::multimap<Nanos, Request*> model;
  for (int step = 0; step < 20'000; ++step) {
    if (random() % 3 != 0 || model.empty()) {
      const Nanos expires = static_cast<Nanos>(random() % 1000);
      model.emplace(expires, &add(static_cast<std::uint32_t>(random() % 17), expires));
    } else {
      auto victim = model.begin();
      std::advance(victim, static_cast<std::ptrdiff_t>(random() % std::min<std::size_t>(model.size(), 50)));
      set_.remove(*victim->second);
      model.erase(victim);
    }
    ASSERT_EQ(set_.earliest_expiry(), model.empty() ? kNever : model.begin()->first);
    ASSERT_EQ(set_.size(), model.size());
  }
}

}  // namespace
}  // namespace fastserve
