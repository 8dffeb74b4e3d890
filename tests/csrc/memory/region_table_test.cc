// Names, limits and counting of registered regions.
#include "memory/region_table.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "memory/region_table_walk.h"
#include "support/shared_object.h"

namespace fastserve {
namespace {

class RegionTableTest : public ::testing::Test {
 protected:
  Status add(const std::string& name, std::uint64_t bytes = 64) {
    return table_.add({name, object_.key(), 0, bytes});
  }

  SharedObject object_{4096};
  RegionTable table_;
};

TEST_F(RegionTableTest, IsOffUntilItIsAllowed) {
  EXPECT_FALSE(table_.allowed());
  table_.allow({});
  EXPECT_TRUE(table_.allowed());
}

TEST_F(RegionTableTest, ANameIsGivenOnce) {
  ASSERT_TRUE(add("r").is_ok());
  const Status again = add("r");
  EXPECT_EQ(again.code(), Code::kAlreadyExists);
  EXPECT_EQ(again.message(), "shared memory region 'r' already in manager");
  EXPECT_TRUE(add("R").is_ok());
  table_.remove("r");
  table_.remove("r");
  table_.remove("never there");
  EXPECT_TRUE(add("r").is_ok());
}

TEST_F(RegionTableTest, ListsByName) {
  ASSERT_TRUE(table_.add({"b", object_.key(), 8, 16}).is_ok());
  ASSERT_TRUE(add("a").is_ok());
  const std::vector<RegionSpec> all = table_.list();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].name, "a");
  EXPECT_EQ(all[1].key, object_.key());
  EXPECT_EQ(all[1].offset, 8U);
  EXPECT_EQ(all[1].bytes, 16U);
  table_.remove_all();
  EXPECT_TRUE(table_.list().empty());
  EXPECT_EQ(table_.totals().regions, 0U);
}

TEST_F(RegionTableTest, UnregisteringWaitsForThoseWhoUseIt) {
  ASSERT_TRUE(add("r").is_ok());
  std::shared_ptr<Region> used = table_.find("r");
  const std::span<std::byte> place = used->at(0, 64).value();
  table_.remove("r");
  EXPECT_EQ(table_.find("r"), nullptr);
  EXPECT_TRUE(table_.list().empty());
  EXPECT_EQ(table_.totals().regions, 1U);
  EXPECT_EQ(table_.totals().bytes, 64U);
  object_.as<char>()[3] = 'x';
  EXPECT_EQ(place[3], std::byte{'x'});
  ASSERT_TRUE(add("r", 32).is_ok()) << "the name is free at once";
  EXPECT_EQ(table_.totals().regions, 2U);
  used.reset();
  EXPECT_EQ(table_.totals().regions, 1U);
  EXPECT_EQ(table_.totals().bytes, 32U);
}

TEST_F(RegionTableTest, TheNumberIsLimited) {
  table_.allow({3, 1U << 20U, 0});
  for (const char* name : {"a", "b", "c"}) EXPECT_TRUE(add(name).is_ok());
  const Status fourth = add("d");
  EXPECT_EQ(fourth.code(), Code::kResourceExhausted);
  EXPECT_NE(fourth.message().find("3 regions are registered or in use"), std::string::npos);
  EXPECT_EQ(add("a").code(), Code::kAlreadyExists) << "what is there is named first";
  const std::shared_ptr<Region> used = table_.find("a");
  table_.remove("a");
  EXPECT_EQ(add("d").code(), Code::kResourceExhausted) << "it is still mapped";
  table_.remove("b");
  EXPECT_TRUE(add("d").is_ok());
}

TEST_F(RegionTableTest, TheBytesAreLimited) {
  for (const std::uint64_t bytes : {99U, 100U, 101U}) {
    RegionTable table;
    table.allow({10, 200, 0});
    ASSERT_TRUE(table.add({"a", object_.key(), 0, 100}).is_ok());
    const Status second = table.add({"b", object_.key(), 0, bytes});
    EXPECT_EQ(second.is_ok(), bytes <= 100) << second.message();
    if (!second.is_ok()) {
      EXPECT_EQ(second.code(), Code::kResourceExhausted);
    }
    EXPECT_EQ(table.totals().bytes, bytes <= 100 ? 100 + bytes : 100);
  }
}

TEST_F(RegionTableTest, WhatIsRefusedIsNotCounted) {
  EXPECT_FALSE(add("r", 4097).is_ok());
  EXPECT_FALSE(table_.add({"r", "/no/such", 0, 1}).is_ok());
  EXPECT_FALSE(table_.add({"r", "/fs-test-nobody", 0, 1}).is_ok());
  EXPECT_EQ(table_.totals().regions, 0U);
  EXPECT_EQ(table_.totals().bytes, 0U);
  EXPECT_EQ(table_.totals().refused, 3U);
}

TEST_F(RegionTableTest, CountsBrokenOnes) {
  ASSERT_TRUE(install_sigbus_guard().is_ok());
  ASSERT_TRUE(add("a").is_ok());
  object_.resize(0);
  static_cast<void>(*static_cast<volatile std::byte*>(table_.find("a")->at(0, 1).value().data()));
  EXPECT_EQ(table_.totals().broken, 1U);
  EXPECT_EQ(table_.list().size(), 1U) << "it stays until it is unregistered";
  table_.remove("a");
  EXPECT_EQ(table_.totals().broken, 0U);
}

TEST_F(RegionTableTest, ThreadsAddFindAndRemove) {
  table_.allow({64, 1U << 20U, 0});
  std::atomic<int> found{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i) {
        const std::string name(1, static_cast<char>('a' + (i + t) % 3));
        static_cast<void>(add(name).is_ok());
        if (const auto region = table_.find(name); region != nullptr) {
          object_.as<std::atomic<int>>()->fetch_add(0);
          found += region->at(0, 64).is_ok() ? 1 : 0;
        }
        if (i % 3 == 0) table_.remove(name);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(found.load(), 0);
  table_.remove_all();
  EXPECT_EQ(table_.totals().regions, 0U);
}

TEST(RegionTable, IsWhatItsModelSays) {
  SharedObject object(RegionTableWalk::kObjectBytes);
  std::mt19937 random(20261122);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::uint8_t> bytes(400);
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
    RegionTableWalk(object.key(), [](const char* what) { ADD_FAILURE() << what; }).run(bytes);
    if (HasFailure()) FAIL() << "round " << round;
  }
}

}  // namespace
}  // namespace fastserve
