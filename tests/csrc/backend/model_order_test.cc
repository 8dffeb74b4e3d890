#include "backend/model_order.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace fastserve {
namespace {

struct Batch {
  explicit Batch(std::int64_t model) {
    place.start = [](ModelOrder::Place& at) { static_cast<Batch*>(at.owner)->started = true; };
    place.owner = this;
    place.model = model;
  }
  bool started = false;
  ModelOrder::Place place;
};

TEST(ModelOrder, TheSameModelMayRunSeveralBatches) {
  ModelOrder order;
  Batch a(1), b(1);
  EXPECT_TRUE(order.enter(a.place));
  EXPECT_TRUE(order.enter(b.place));
}

TEST(ModelOrder, AnotherModelWaitsForAllAndWhoeverFollowsWaitsBehindIt) {
  ModelOrder order;
  Batch a(1), b(1), other(0), c(1), d(1);
  EXPECT_TRUE(order.enter(a.place));
  EXPECT_TRUE(order.enter(b.place));
  EXPECT_FALSE(order.enter(other.place));
  EXPECT_FALSE(order.enter(c.place)) << "no overtaking";
  EXPECT_FALSE(order.enter(d.place));
  order.leave(a.place);
  EXPECT_FALSE(other.started);
  order.leave(b.place);
  EXPECT_TRUE(other.started);
  EXPECT_FALSE(c.started);
  order.leave(other.place);
  EXPECT_TRUE(c.started && d.started);
  order.leave(c.place);
  order.leave(d.place);
  EXPECT_TRUE(order.enter(other.place));
}

TEST(ModelOrder, WhoNeverEnteredMayLeave) {
  ModelOrder order;
  Batch a(1), failed(0), other(0);
  EXPECT_TRUE(order.enter(a.place));
  order.leave(failed.place);
  EXPECT_FALSE(order.enter(other.place)) << "a is still inside";
}

// A start that fails leaves at once, while the others of the same moment are still to be started.
TEST(ModelOrder, AStartMayLeaveAtOnce) {
  ModelOrder order;
  Batch a(1), next(0);
  struct Failing {
    ModelOrder& order;
    ModelOrder::Place place;
  } failing{order, {}};
  failing.place.start = [](ModelOrder::Place& at) { static_cast<Failing*>(at.owner)->order.leave(at); };
  failing.place.owner = &failing;
  EXPECT_TRUE(order.enter(a.place));
  EXPECT_FALSE(order.enter(failing.place));
  EXPECT_FALSE(order.enter(next.place));
  order.leave(a.place);
  EXPECT_TRUE(next.started);
  order.leave(next.place);
  EXPECT_TRUE(order.enter(a.place));
}

}  // namespace
}  // namespace fastserve
