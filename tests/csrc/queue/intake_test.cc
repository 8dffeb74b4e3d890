#include "queue/intake.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>
#include <vector>

namespace fastserve {
namespace {

struct Item : IntakeNode<Item> {
  int producer = 0;
  int number = 0;
};

TEST(Intake, KeepsTheOrderOfPushesAndSaysWhoWasFirst) {
  Intake<Item> intake;
  std::array<Item, 3> items;
  EXPECT_TRUE(intake.empty());
  EXPECT_EQ(intake.take_all(), nullptr);
  EXPECT_TRUE(intake.push(&items[0]));
  EXPECT_FALSE(intake.push(&items[1]));
  EXPECT_FALSE(intake.push(&items[2]));
  EXPECT_FALSE(intake.empty());
  Item* item = intake.take_all();
  for (Item& expected : items) {
    EXPECT_EQ(item, &expected);
    item = item->next_in_intake;
  }
  EXPECT_EQ(item, nullptr);
  EXPECT_TRUE(intake.push(&items[0])) << "empty again";
}

TEST(Intake, AChainIsOneBurst) {
  Intake<Item> intake;
  std::array<Item, 4> items;
  intake.push(&items[0]);
  items[2].next_in_intake = &items[1];  // newest first
  EXPECT_FALSE(intake.push_chain(&items[2], &items[1]));
  intake.push(&items[3]);
  Item* item = intake.take_all();
  for (Item& expected : items) {
    ASSERT_EQ(item, &expected);
    item = item->next_in_intake;
  }
}

TEST(Intake, ManyProducersLoseNothingAndKeepEachOnesOrder) {
  constexpr int kProducers = 4;
  constexpr int kItems = 20'000;
  std::vector<std::vector<Item>> items(kProducers, std::vector<Item>(kItems));
  Intake<Item> intake;
  std::vector<std::thread> producers;
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&, p] {
      for (int i = 0; i < kItems; ++i) {
        Item& item = items[static_cast<std::size_t>(p)][static_cast<std::size_t>(i)];
        item.producer = p;
        item.number = i;
        intake.push(&item);
      }
    });
  }
  std::array<int, kProducers> next{};
  for (int taken = 0; taken < kProducers * kItems;) {
    for (Item* item = intake.take_all(); item != nullptr; item = item->next_in_intake, ++taken) {
      ASSERT_EQ(item->number, next[static_cast<std::size_t>(item->producer)]++);
    }
  }
  for (std::thread& producer : producers) producer.join();
  EXPECT_TRUE(intake.empty());
}

}  // namespace
}  // namespace fastserve
