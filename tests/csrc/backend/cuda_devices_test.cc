// What is told about devices, and who is found by which name. On the simulated CUDA driver.
#include "backend/cuda_devices.h"

#include <gtest/gtest.h>

#include "simulated_cuda/simulated_cuda.h"

namespace fastserve {
namespace {

class CudaDevices : public ::testing::Test {
 protected:
  void SetUp() override {
    simulated_cuda_reset();
    simulated_cuda_set("devices", 2);
  }
  void TearDown() override { simulated_cuda_reset(); }
};

TEST_F(CudaDevices, TellsWhatTheyAre) {
  const auto devices = list_cuda_devices();
  ASSERT_TRUE(devices.is_ok()) << devices.status().message();
  ASSERT_EQ(devices->size(), 2U);
  const CudaDeviceFacts& second = (*devices)[1];
  EXPECT_EQ(second.ordinal, 1);
  EXPECT_EQ(second.name, "Simulated GPU");
  EXPECT_EQ(second.uuid, "GPU-a0a1a2a3-a4a5-a6a7-a8a9-aaabacadae01");
  EXPECT_EQ(second.pci, "F00D:01:00.0");
  EXPECT_EQ(second.sm, 90);
  EXPECT_EQ(second.total_bytes, std::uint64_t{1024} << 20U);
  EXPECT_EQ(second.memory_node, -1) << "no such device on this machine's bus";
}

TEST_F(CudaDevices, PartsOfADeviceAreNamedAsSuch) {
  simulated_cuda_set("mig", 1);
  const auto device = read_cuda_device(0);
  ASSERT_TRUE(device.is_ok());
  EXPECT_TRUE(device->uuid.starts_with("MIG-a0a1")) << device->uuid;
}

TEST_F(CudaDevices, OrdinalsEnd) {
  EXPECT_TRUE(read_cuda_device(1).is_ok());
  const auto beyond = read_cuda_device(2);
  EXPECT_EQ(beyond.status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(beyond.status().message(), "gpu: got 2, want 0 to 1");
  simulated_cuda_set("devices", 1);
  EXPECT_EQ(read_cuda_device(-1).status().message(), "gpu: got -1, want 0, the only one");
}

TEST_F(CudaDevices, AreFoundByOrdinalAndUuid) {
  const auto devices = list_cuda_devices();
  ASSERT_TRUE(devices.is_ok());
  EXPECT_EQ(find_cuda_device(*devices, "1"), 1);
  EXPECT_EQ(find_cuda_device(*devices, "GPU-a0a1a2a3-a4a5-a6a7-a8a9-aaabacadae01"), 1);
  EXPECT_EQ(find_cuda_device(*devices, "GPU-a0a1"), std::nullopt) << "both begin like this";
  EXPECT_EQ(find_cuda_device({devices->data(), 1}, "GPU-a0a1"), 0);
  EXPECT_EQ(find_cuda_device(*devices, "GPU-"), std::nullopt);
  EXPECT_EQ(find_cuda_device(*devices, "2"), std::nullopt);
  EXPECT_EQ(find_cuda_device(*devices, ""), std::nullopt);
  EXPECT_EQ(known_cuda_devices({devices->data(), 1}), "0 (GPU-a0a1a2a3-a4a5-a6a7-a8a9-aaabacadae00)");
}

TEST_F(CudaDevices, FailingQuestionsNameTheCall) {
  simulated_cuda_fail("cuDeviceGetName", 1, 999);
  const auto device = read_cuda_device(0);
  EXPECT_EQ(device.status().code(), Code::kUnavailable);
  EXPECT_TRUE(device.status().message().starts_with("cuDeviceGetName: ")) << device.status().message();
}

}  // namespace
}  // namespace fastserve
