#include "sched/instance_board.h"

#include <gtest/gtest.h>

namespace fastserve {
namespace {

int room(InstanceLine& line, Nanos batch_ns) {
  line.learn_room(batch_ns);
  return line.room.load();
}

TEST(InstanceBoard, ShortBatchesGetMoreRoomThanLongOnes) {
  InstanceLine line("0", 2, 8);
  EXPECT_EQ(line.room.load(), 2) << "nothing learned yet";
  EXPECT_EQ(room(line, 0), 8);
  EXPECT_EQ(room(line, InstanceLine::kShortLine / 8), 8);
  EXPECT_EQ(room(line, InstanceLine::kShortLine / 4), 4);
  EXPECT_EQ(room(line, InstanceLine::kShortLine / 2), 2);
  EXPECT_EQ(room(line, 50 * kMillisecond), 2) << "never less than its depth";
  line.in_flight = 2;
  EXPECT_FALSE(line.has_room());
  line.learn_room(kMicrosecond);
  EXPECT_TRUE(line.has_room());
}

TEST(InstanceBoard, WithoutADepthForShortOnesItStays) {
  InstanceLine line("0", 1);
  EXPECT_EQ(room(line, 1), 1);
  EXPECT_EQ(room(line, kSecond), 1);
}

}  // namespace
}  // namespace fastserve
