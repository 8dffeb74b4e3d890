// Page-locking and IPC memory over the driver table, on the simulated CUDA driver: what is registered once, opened once and given back,
// and what a client is told. The exporter is another process: this test's own executable.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "backend/cuda_driver.h"
#include "backend/cuda_exporter.h"
#include "backend/cuda_fault.h"
#include "backend/cuda_ipc.h"
#include "backend/cuda_ledger.h"
#include "backend/cuda_page_lock.h"
#include "memory/pinned_arena.h"
#include "memory/region_table.h"
#include "simulated_cuda/simulated_cuda.h"
#include "support/shared_object.h"

namespace fastserve {
namespace {

constexpr std::size_t kBytes = kExportedBytes;

// Not a test: what the exporting process runs. Device memory full of 7, its handle to stdout; at the end of stdin its first byte.
TEST(Exporter, DISABLED_Runs) {
  if (std::getenv(kExport) == nullptr) GTEST_SKIP();
  const DriverTable driver = open_driver("libcuda.so.1").value();
  CUcontext context = nullptr;
  CUdeviceptr memory = 0;
  CUipcMemHandle handle;
  const std::vector<char> sevens(kBytes, 7);
  ASSERT_EQ(driver.init(0), CUDA_SUCCESS);
  ASSERT_EQ(driver.primary_ctx_retain(&context, 0), CUDA_SUCCESS);
  ASSERT_EQ(driver.ctx_set_current(context), CUDA_SUCCESS);
  ASSERT_EQ(driver.mem_alloc(&memory, kBytes), CUDA_SUCCESS);
  ASSERT_EQ(driver.memcpy_htod(memory, sevens.data(), kBytes), CUDA_SUCCESS);
  ASSERT_EQ(driver.ipc_get_mem_handle(&handle, memory), CUDA_SUCCESS);
  const int out = std::atoi(std::getenv(kExport));
  ASSERT_EQ(::write(out, &handle, sizeof handle), static_cast<ssize_t>(sizeof handle));
  char byte = 0;
  while (::read(STDIN_FILENO, &byte, 1) == 1) {
  }
  ASSERT_EQ(driver.memcpy_dtoh(&byte, memory, 1), CUDA_SUCCESS);
  ASSERT_EQ(::write(out, &byte, 1), 1);
}

class CudaClientMemory : public testing::Test {
 protected:
  void SetUp() override {
    simulated_cuda_reset();
    forget_device_faults();
    table_.allow({});
    const auto opener = cuda_ipc_opener();
    ASSERT_TRUE(opener.is_ok()) << opener.status().message();
    opener_ = *opener;
  }
  void TearDown() override {
    table_.remove_all(true);
    simulated_cuda_reset();
    forget_device_faults();
  }
  Status add(const std::string& name, std::span<const std::byte> handle, std::uint64_t bytes = kBytes,
             int device = 0) {
    return table_.add_on_device({name, "", 0, bytes, device}, handle, *opener_);
  }
  static std::int64_t count(const char* counter) { return simulated_cuda_count(counter); }

  RegionTable table_;
  DeviceMemoryOpener* opener_ = nullptr;
};

TEST_F(CudaClientMemory, AHandleIsOpenedOnceAndClosedAfterItsLastUse) {
  const Exporter exporter;
  const std::int64_t opened = count("calls:cuIpcOpenMemHandle");
  const std::int64_t closed = count("calls:cuIpcCloseMemHandle");
  ASSERT_TRUE(add("a", exporter.handle).is_ok());
  ASSERT_TRUE(add("b", exporter.handle, 100).is_ok());
  EXPECT_EQ(count("calls:cuIpcOpenMemHandle") - opened, 1);
  std::shared_ptr<Region> request = table_.find("b");
  table_.remove_all(true);
  EXPECT_EQ(count("calls:cuIpcCloseMemHandle"), closed);
  request.reset();
  EXPECT_EQ(count("calls:cuIpcCloseMemHandle") - closed, 1);
  ASSERT_TRUE(add("a", exporter.handle).is_ok()) << "it may come again";
  EXPECT_EQ(count("calls:cuIpcOpenMemHandle") - opened, 2);
}

TEST_F(CudaClientMemory, BytesComeAndGo) {
  Exporter exporter;
  ASSERT_TRUE(add("a", exporter.handle).is_ok());
  const std::shared_ptr<Region> region = table_.find("a");
  std::vector<std::byte> host(kBytes);
  const auto at = region->at(0, kBytes).value();
  ASSERT_TRUE(region->on_device()->read(host.data(), at.data(), kBytes).is_ok());
  EXPECT_EQ(host, std::vector<std::byte>(kBytes, std::byte{7}));
  host[0] = std::byte{9};
  ASSERT_TRUE(region->on_device()->write(at.data(), host.data(), 1).is_ok());
  EXPECT_EQ(exporter.first_byte(), 9);
  EXPECT_EQ(count("legacy_stream_calls"), 0) << "in this process";
}

TEST_F(CudaClientMemory, TheDriverSaysHowLargeItIs) {
  const Exporter exporter;
  EXPECT_TRUE(add("a", exporter.handle, kBytes - 1).is_ok());
  EXPECT_TRUE(add("b", exporter.handle, kBytes).is_ok());
  const Status refused = add("c", exporter.handle, kBytes + 1);
  EXPECT_EQ(refused.code(), Code::kInvalidArgument);
  EXPECT_NE(refused.message().find("got 4097, want 4096 or less"), std::string::npos) << refused.message();
}

TEST_F(CudaClientMemory, AClientsMistakesAreItsOwn) {
  const Exporter exporter;
  const std::vector<std::byte> nonsense(kIpcHandleBytes);
  EXPECT_EQ(add("a", nonsense).code(), Code::kInvalidArgument);
  for (const std::size_t bytes : {kIpcHandleBytes - 1, kIpcHandleBytes + 1}) {
    const Status refused = add("a", std::vector<std::byte>(bytes));
    EXPECT_EQ(refused.code(), Code::kInvalidArgument);
    EXPECT_NE(refused.message().find("want 64"), std::string::npos) << refused.message();
  }
  const Status no_device = add("a", exporter.handle, kBytes, 7);
  EXPECT_EQ(no_device.code(), Code::kInvalidArgument);
  EXPECT_NE(no_device.message().find("device_id: got 7, want 0"), std::string::npos) << no_device.message();
}

TEST_F(CudaClientMemory, WhatTheDriverLacksIsNotTheClientsMistake) {
  const Exporter exporter;
  simulated_cuda_fail("cuIpcOpenMemHandle", 1, CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(add("a", exporter.handle).code(), Code::kResourceExhausted);
  simulated_cuda_fail("cuIpcOpenMemHandle", 1, CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(add("a", exporter.handle).code(), Code::kUnavailable);
}

TEST_F(CudaClientMemory, NothingIsClosedOnADeadDevice) {
  const Exporter exporter;
  ASSERT_TRUE(add("a", exporter.handle).is_ok());
  const std::int64_t closed = count("calls:cuIpcCloseMemHandle");
  add_device_fault({0, "GPU-x", unavailable("lost"), "", 0});
  table_.remove_all(true);
  EXPECT_EQ(count("calls:cuIpcCloseMemHandle"), closed);
}

// --- page locks

TEST_F(CudaClientMemory, ARegionIsRegisteredOnceWithTheDriverAndUntilItsLastUse) {
  SharedObject object(8192);
  ASSERT_TRUE(start_page_locks(0).is_ok());
  ASSERT_TRUE(start_page_locks(0).is_ok());
  ASSERT_TRUE(table_.add({"r", object.key(), 0, 8192}).is_ok());
  EXPECT_EQ(count("pinned_bytes"), 8192);
  std::shared_ptr<Region> request = table_.find("r");
  table_.remove("r");
  EXPECT_TRUE(pinned_ranges().holds(request->at(0, 8192)->data(), 8192));
  EXPECT_EQ(count("pinned_ranges"), 1);
  request.reset();
  EXPECT_EQ(count("pinned_ranges"), 0);
}

TEST_F(CudaClientMemory, ADriverThatRefusesToLockIsNoFailure) {
  SharedObject object(4096);
  ASSERT_TRUE(start_page_locks(0).is_ok());
  const std::uint64_t refused = pinned_ranges().totals().refused;
  simulated_cuda_fail("cuMemHostRegister", 1, CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_TRUE(table_.add({"r", object.key(), 0, 4096}).is_ok());
  EXPECT_EQ(pinned_ranges().totals().refused - refused, 1U);
  EXPECT_EQ(count("pinned_ranges"), 0);
}

TEST_F(CudaClientMemory, TheArenaRegistersSlabsAndGivesThemBack) {
  ASSERT_TRUE(start_page_locks(0).is_ok());
  auto memory = pinned_arena().allocator(PinnedArena::kAnyNode);
  std::byte* const piece = memory->allocate(1 << 20);
  EXPECT_TRUE(pinned_ranges().holds(piece, 1 << 20));
  EXPECT_EQ(count("pinned_ranges"), 1);
  memory->free(piece, 1 << 20);
  memory.reset();
  EXPECT_EQ(count("pinned_ranges"), 0);
}

TEST_F(CudaClientMemory, ALostDeviceIsNotAskedToUnlock) {
  SharedObject object(4096);
  ASSERT_TRUE(start_page_locks(0).is_ok());
  ASSERT_TRUE(table_.add({"r", object.key(), 0, 4096}).is_ok());
  const std::int64_t calls = count("calls:cuMemHostUnregister");
  add_device_fault({0, "GPU-x", unavailable("lost"), "", 0});
  table_.remove("r");
  EXPECT_EQ(count("calls:cuMemHostUnregister"), calls);
  EXPECT_TRUE(table_.add({"s", object.key(), 0, 4096}).is_ok()) << "unlocked, but there";
  table_.remove("s");
}

// --- the ledger of a device

TEST_F(CudaClientMemory, TheLedgerAsksTheDriver) {
  const auto ledger = open_device_ledger(0);
  ASSERT_TRUE(ledger.is_ok()) << ledger.status().message();
  const DeviceLedgerRow row = ledger.value()->row();
  EXPECT_EQ(row.total, std::uint64_t{1} << 30);
  EXPECT_GT(row.free, 0U);
  EXPECT_TRUE(row.uuid.starts_with("GPU-")) << row.uuid;
  EXPECT_EQ(open_device_ledger(0).value(), ledger.value());
  add_device_fault({0, row.uuid, unavailable("lost"), "", 0});
  EXPECT_EQ(ledger.value()->free_bytes(), std::nullopt);
}

TEST_F(CudaClientMemory, FiftyLoadsLeaveNothingBehind) {
  DeviceLedger& ledger = *open_device_ledger(0).value();
  const DriverTable& driver = *cuda_driver().value();
  CUcontext context = nullptr;
  ASSERT_EQ(driver.primary_ctx_retain(&context, 0), CUDA_SUCCESS);
  ASSERT_EQ(driver.ctx_set_current(context), CUDA_SUCCESS);
  const std::uint64_t before = ledger.free_bytes().value();
  for (int i = 0; i < 50; ++i) {
    const std::lock_guard loading(DeviceLedger::load_mutex());
    auto claim = ledger.admit("m", {.weights = 600U << 20U});
    ASSERT_TRUE(claim.is_ok()) << i << ": " << claim.status().message();
    EXPECT_FALSE(ledger.admit("n", {.weights = 600U << 20U}).is_ok());
    const std::uint64_t free = ledger.free_bytes().value();
    CUdeviceptr weights = 0;
    ASSERT_EQ(driver.mem_alloc(&weights, 8U << 20U), CUDA_SUCCESS);
    claim->settle({.weights = free - ledger.free_bytes().value()});
    EXPECT_EQ(ledger.row().held, 8U << 20U);
    ASSERT_EQ(driver.mem_free(weights), CUDA_SUCCESS);
  }
  EXPECT_EQ(ledger.row().held, 0U);
  EXPECT_EQ(ledger.free_bytes().value(), before);
}

}  // namespace
}  // namespace fastserve
