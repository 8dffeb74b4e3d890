// What the lane does with memory of clients and of devices, on the simulated CUDA driver with the real engine: regions of the GPU go
// straight to the lane and back, the ledger admits and forgets.
#include <gtest/gtest.h>

#include <vector>

#include "backend/cuda_exporter.h"
#include "backend/cuda_lane_model.h"
#include "backend/cuda_ledger.h"
#include "memory/region_table.h"

namespace fastserve::test {
namespace {

class ClientMemoryLane : public testing::Test {
 protected:
  void SetUp() override {
    simulated_cuda_reset();
    forget_device_faults();
  }
  void TearDown() override { simulated_cuda_hold(SIMULATED_COMPUTE, 0); }
  DeviceLedgerRow ledger() { return open_device_ledger(0).value()->row(); }
};

TEST_F(ClientMemoryLane, MemoryOfTheGpuGoesStraightToTheLaneAndBack) {
  const Exporter exporter;
  LaneEngine on;
  ASSERT_TRUE(on.engine.load(lane_spec()).is_ok());
  on.engine.regions().allow({});
  ASSERT_TRUE(on.engine.regions()
                  .add_on_device({"g", "", 0, kExportedBytes, 0}, exporter.handle, *cuda_ipc_opener().value())
                  .is_ok());
  const std::shared_ptr<Region> region = on.engine.regions().find("g");
  LaneRequest& made = on.make(2);
  ASSERT_TRUE(
      region->on_device()->write(region->at(0, 32)->data(), bytes_of(made.values).data(), 32).is_ok());
  made.request.inputs[0].data = {};
  made.request.shared_inputs = {{0, {"g", 0, 32}}};
  made.request.requested_outputs = {{.name = "y", .shared = {"g", 1024, 32}}, {.name = "total"}};
  simulated_cuda_clear_log();
  ASSERT_TRUE(on.submitter.submit(made.request).is_ok());
  on.submitter.flush();
  ASSERT_EQ(on.answers(1), 1U);
  ASSERT_TRUE(made.request.response.status.is_ok()) << made.request.response.status.message();
  EXPECT_EQ(lines_of("d2d", SIMULATED_ENDED), 2);  // x in, y out
  EXPECT_EQ(lines_of("d2h", SIMULATED_ENDED), 1);  // total
  EXPECT_EQ(lines_of("h2d", SIMULATED_ENDED), 0);
  std::vector<float> y(8);
  ASSERT_TRUE(region->on_device()
                  ->read(reinterpret_cast<std::byte*>(y.data()), region->at(1024, 32)->data(), 32)
                  .is_ok());
  for (std::size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], 2 * made.values[i] + 1) << i;
  EXPECT_TRUE(made.request.response.outputs[0].placed);
  made.request.reset();
}

TEST_F(ClientMemoryLane, BatchedWithOthersItIsCopiedToo) {
  const Exporter exporter;
  LaneEngine on;
  ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", "1"}})).is_ok());
  on.engine.regions().allow({});
  ASSERT_TRUE(on.engine.regions()
                  .add_on_device({"g", "", 0, kExportedBytes, 0}, exporter.handle, *cuda_ipc_opener().value())
                  .is_ok());
  const std::shared_ptr<Region> region = on.engine.regions().find("g");
  simulated_cuda_hold(SIMULATED_COMPUTE, 1);
  on.submit();  // keeps the lane, so that the next ones share a batch
  LaneRequest& made = on.make(1);
  ASSERT_TRUE(
      region->on_device()->write(region->at(0, 16)->data(), bytes_of(made.values).data(), 16).is_ok());
  made.request.inputs[0].data = {};
  made.request.shared_inputs = {{0, {"g", 0, 16}}};
  made.request.requested_outputs = {{.name = "y", .shared = {"g", 1024, 16}}, {.name = "total"}};
  ASSERT_TRUE(on.submitter.submit(made.request).is_ok());
  LaneRequest& other = on.submit(2);
  simulated_cuda_hold(SIMULATED_COMPUTE, 0);
  ASSERT_EQ(on.answers(3), 3U);
  EXPECT_EQ(other.wrong(), "");
  ASSERT_TRUE(made.request.response.status.is_ok()) << made.request.response.status.message();
  std::vector<float> y(4);
  ASSERT_TRUE(region->on_device()
                  ->read(reinterpret_cast<std::byte*>(y.data()), region->at(1024, 16)->data(), 16)
                  .is_ok());
  for (std::size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], 2 * made.values[i] + 1) << i;
}

TEST_F(ClientMemoryLane, FiftyLoadsLeaveNothingBehind) {
  LaneEngine on;
  std::int64_t bytes = -1;
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(on.engine.load(lane_spec()).is_ok());
    const DeviceLedgerRow row = ledger();
    ASSERT_EQ(row.holdings.size(), 1U);
    EXPECT_EQ(row.holdings[0].owner, "model 'lane' version 1");
    EXPECT_FALSE(row.holdings[0].loading);
    EXPECT_GT(row.holdings[0].needs.buffers, 0U);
    ASSERT_TRUE(on.engine.unload("lane", 1, kNever).is_ok());
    EXPECT_EQ(ledger().held, 0U);
    const std::int64_t now = simulated_cuda_count("device_bytes");
    if (bytes >= 0) {
      ASSERT_EQ(now, bytes) << "load " << i;
    }
    bytes = now;
  }
  EXPECT_EQ(simulated_cuda_count("pinned_ranges"), 0);
}

TEST_F(ClientMemoryLane, ALoadBeyondTheBudgetIsRefusedAndSaysWhoHasIt) {
  LaneOptions large;
  large.scratch_bytes = std::size_t{600} << 20;
  LaneEngine on(large);
  ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", "1"}})).is_ok());
  LoadSpec second = lane_spec({{"lanes", "1"}});
  second.model = "second";
  const Status refused = on.engine.load(second);
  EXPECT_EQ(refused.code(), Code::kResourceExhausted);
  EXPECT_NE(refused.message().find("model 'second' version 1: got 6"), std::string::npos)
      << refused.message();
  EXPECT_NE(refused.message().find("held by model 'lane' version 1 6"), std::string::npos)
      << refused.message();
  ASSERT_TRUE(on.engine.unload("lane", 1, kNever).is_ok());
  EXPECT_TRUE(on.engine.load(second).is_ok()) << "it came back";
}

}  // namespace
}  // namespace fastserve::test
