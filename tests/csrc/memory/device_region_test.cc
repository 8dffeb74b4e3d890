// Registered memory of a GPU, on a double: names are shared with those of /dev/shm, limits too, and the last use closes it.
#include <gtest/gtest.h>

#include "memory/region_table.h"
#include "support/device_memory_double.h"
#include "support/shared_object.h"

namespace fastserve {
namespace {

class DeviceRegion : public testing::Test {
 protected:
  DeviceRegion() { opener_.allocate("handle", 100); }
  Status add(const std::string& name, std::uint64_t bytes = 64, const std::string& handle = "handle",
             int device = 0) {
    return table_.add_on_device({name, "", 0, bytes, device}, handle_bytes(handle), opener_);
  }
  OpenerDouble opener_;
  RegionTable table_;
};

TEST_F(DeviceRegion, MayBeAsLargeAsItsAllocation) {
  EXPECT_TRUE(add("a", 99).is_ok());
  EXPECT_TRUE(add("b", 100).is_ok());
  const Status refused = add("c", 101);
  EXPECT_EQ(refused.code(), Code::kInvalidArgument);
  EXPECT_EQ(refused.message(),
            "failed to register CUDA shared memory region: 'c': byte_size: got 101, want 100 or less, the "
            "size of the "
            "allocation");
  EXPECT_EQ(add("d", 0).message(), "byte_size: got 0, want 1 or more");
  EXPECT_EQ(table_.totals().refused, 2U);
  EXPECT_EQ(opener_.uses("handle"), 2) << "refused ones let go of it";
}

TEST_F(DeviceRegion, SharesTheNamesOfTheOthers) {
  SharedObject object(4096);
  ASSERT_TRUE(table_.add({"r", object.key(), 0, 64}).is_ok());
  EXPECT_EQ(add("r").code(), Code::kAlreadyExists);
  ASSERT_TRUE(add("g").is_ok());
  EXPECT_EQ(table_.add({"g", object.key(), 0, 64}).code(), Code::kAlreadyExists);
  EXPECT_EQ(table_.totals().on_device, 1U);
  table_.remove_all(true);
  EXPECT_EQ(table_.totals().registered, 1U);
  EXPECT_EQ(table_.list()[0].name, "r");
  ASSERT_TRUE(add("g").is_ok());
  table_.remove_all(false);
  ASSERT_EQ(table_.list().size(), 1U);
  EXPECT_EQ(table_.list()[0].device, 0);
}

TEST_F(DeviceRegion, TheLastUseClosesIt) {
  ASSERT_TRUE(add("g").is_ok());
  std::shared_ptr<Region> request = table_.find("g");
  table_.remove("g");
  EXPECT_EQ(opener_.uses("handle"), 1);
  request.reset();
  EXPECT_EQ(opener_.uses("handle"), 0);
  EXPECT_EQ(table_.totals().bytes, 0U);
}

TEST_F(DeviceRegion, WhatDoesNotOpenIsRefusedWithItsName) {
  const Status refused = add("g", 1, "other");
  EXPECT_EQ(refused.code(), Code::kInvalidArgument);
  EXPECT_NE(refused.message().find("failed to register CUDA shared memory region: 'g': raw_handle"),
            std::string::npos)
      << refused.message();
  EXPECT_EQ(add("g", 1, "handle", 1).code(), Code::kInvalidArgument);
  EXPECT_EQ(add("", 1).code(), Code::kInvalidArgument);
}

TEST_F(DeviceRegion, PlacesInItAreChecked) {
  ASSERT_TRUE(add("g", 64).is_ok());
  const auto region = table_.find("g");
  EXPECT_EQ(reinterpret_cast<std::uint64_t>(region->at(8, 8)->data()), region->on_device()->address() + 8);
  EXPECT_TRUE(region->at(0, 64).is_ok());
  EXPECT_FALSE(region->at(0, 65).is_ok());
  EXPECT_FALSE(region->at(64, 0).is_ok());
  EXPECT_FALSE(region->at(1, ~std::uint64_t{0}).is_ok());
}

}  // namespace
}  // namespace fastserve
