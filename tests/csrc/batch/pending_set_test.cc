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

  std::deque<Request> requests_;
  PendingSet set_;
};

using Tags = std::vector<std::uint64_t>;

TEST_F(PendingSetTest, PriorityFirstThenArrival) {
  add(0);       // 1: the middle
  add(16);      // 2: last
  add(1);       // 3: first
  add(0);       // 4
  add(1);       // 5
  add(40'000);  // 6: as 16
  EXPECT_EQ(order(), (Tags{3, 5, 1, 4, 2, 6}));
  EXPECT_EQ(set_.size(), 6U);
  EXPECT_EQ(set_.oldest_enqueued(), 1);
}

TEST_F(PendingSetTest, ModelDefaultPriority) {
  PendingSet set(2);
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
