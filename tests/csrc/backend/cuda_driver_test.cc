// The driver table: what it says where there is no driver, no device or an old one, and what errors become. On the simulated
// CUDA driver; nothing here says anything about a GPU.
#include "backend/cuda_driver.h"

#include <gtest/gtest.h>

#include <string>

#include "simulated_cuda/simulated_cuda.h"

namespace fastserve {
namespace {

class CudaDriver : public ::testing::Test {
 protected:
  void SetUp() override { simulated_cuda_reset(); }
  void TearDown() override { simulated_cuda_reset(); }
};

std::string reason(const Result<DriverTable>& opened) {
  return opened.is_ok() ? "" : opened.status().message();
}

TEST_F(CudaDriver, NoLibraryIsSaidInPlainWords) {
  const auto opened = open_driver("libthere-is-no-such-driver.so.1");
  ASSERT_FALSE(opened.is_ok());
  EXPECT_EQ(opened.status().code(), Code::kFailedPrecondition);
  EXPECT_TRUE(reason(opened).starts_with("no NVIDIA driver: libthere-is-no-such-driver.so.1"))
      << reason(opened);
}

TEST_F(CudaDriver, AnotherLibraryIsTakenForAnOldDriver) {
  const auto opened = open_driver("libm.so.6");
  ASSERT_FALSE(opened.is_ok());
  EXPECT_EQ(reason(opened),
            "the NVIDIA driver is too old: libm.so.6 has no cuGetProcAddress_v2; wanted is CUDA 12.0 or "
            "newer (driver 525)");
}

TEST_F(CudaDriver, FillsEveryMember) {
  const auto opened = open_driver("libcuda.so.1");
  ASSERT_TRUE(opened.is_ok()) << opened.status().message();
#define EXPECT_MEMBER(member, name, suffix) EXPECT_NE(opened->member, nullptr) << #name;
  FASTSERVE_CUDA_FUNCTIONS(EXPECT_MEMBER)
#undef EXPECT_MEMBER
  EXPECT_EQ(opened->driver_version, 13000);
}

TEST_F(CudaDriver, NoDevice) {
  simulated_cuda_set("devices", 0);
  const auto opened = open_driver("libcuda.so.1");
  ASSERT_FALSE(opened.is_ok());
  EXPECT_EQ(opened.status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(reason(opened), "no GPU: the NVIDIA driver (libcuda.so.1) finds no device");
}

TEST_F(CudaDriver, NamesTheMissingFunction) {
  simulated_cuda_set("missing:cuGraphUpload", 1);
  const auto opened = open_driver("libcuda.so.1");
  ASSERT_FALSE(opened.is_ok());
  EXPECT_EQ(opened.status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(reason(opened),
            "the NVIDIA driver is too old: libcuda.so.1 (CUDA 13.0) has no cuGraphUpload; wanted is CUDA "
            "12.0 or newer (driver "
            "525)");
  EXPECT_EQ(simulated_cuda_count("calls:cuInit"), 0) << "a driver that is not usable is not started";
}

TEST_F(CudaDriver, OldVersion) {
  simulated_cuda_set("version", 11080);
  const auto opened = open_driver("libcuda.so.1");
  ASSERT_FALSE(opened.is_ok());
  EXPECT_NE(reason(opened).find("(CUDA 11.8) has no "), std::string::npos) << reason(opened);
}

TEST_F(CudaDriver, OptionalFunctionMayBeMissing) {
  simulated_cuda_set("version", 12000);
  const auto opened = open_driver("libcuda.so.1");
  ASSERT_TRUE(opened.is_ok()) << opened.status().message();
#if CUDA_VERSION >= 13000
  EXPECT_EQ(opened->memcpy_batch_async, nullptr);
  simulated_cuda_set("version", 13000);
  EXPECT_NE(open_driver("libcuda.so.1")->memcpy_batch_async, nullptr);
#endif
}

TEST_F(CudaDriver, FailingStartNamesTheError) {
  simulated_cuda_set("init_result", CUDA_ERROR_SYSTEM_DRIVER_MISMATCH);
  const auto opened = open_driver("libcuda.so.1");
  ASSERT_FALSE(opened.is_ok());
  EXPECT_EQ(reason(opened),
            "the NVIDIA driver (libcuda.so.1) does not start: error (simulated) "
            "(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)");
  simulated_cuda_set("init_result", CUDA_ERROR_STUB_LIBRARY);
  EXPECT_NE(reason(open_driver("libcuda.so.1")).find("stub of a CUDA toolkit"), std::string::npos);
}

TEST_F(CudaDriver, IsOpenedOncePerProcess) {
  const auto& first = cuda_driver();
  ASSERT_TRUE(first.is_ok()) << first.status().message();
  simulated_cuda_set("devices", 0);
  EXPECT_EQ(&cuda_driver(), &first);
  EXPECT_TRUE(cuda_driver().is_ok());
}

TEST(CudaErrors, Codes) {
  EXPECT_TRUE(to_status(CUDA_SUCCESS, "cuInit").is_ok());
  EXPECT_EQ(to_status(CUDA_ERROR_OUT_OF_MEMORY, "cuMemAlloc").code(), Code::kResourceExhausted);
  EXPECT_EQ(to_status(CUDA_ERROR_ILLEGAL_ADDRESS, "cuEventQuery").code(), Code::kUnavailable);
  EXPECT_EQ(to_status(CUDA_ERROR_NO_DEVICE, "cuInit").code(), Code::kFailedPrecondition);
  EXPECT_EQ(to_status(CUDA_ERROR_INVALID_VALUE, "cuMemAlloc").code(), Code::kInternal);
  EXPECT_EQ(to_status(static_cast<CUresult>(998), "cuMemAlloc").code(), Code::kInternal);
}

TEST(CudaErrors, TextsNameTheErrorAndWhatWasDone) {
  ASSERT_TRUE(cuda_driver().is_ok());
  EXPECT_EQ(to_status(CUDA_ERROR_ILLEGAL_ADDRESS, "batch 7 of model m").message(),
            "batch 7 of model m: an illegal memory access was encountered (simulated) "
            "(CUDA_ERROR_ILLEGAL_ADDRESS)");
  EXPECT_EQ(error_name(CUDA_ERROR_ILLEGAL_ADDRESS), "CUDA_ERROR_ILLEGAL_ADDRESS");
  EXPECT_EQ(error_name(static_cast<CUresult>(998)), "CUDA_ERROR_998");
}

TEST(CudaErrors, Sticky) {
  for (const int code : {214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719}) {
    EXPECT_TRUE(is_sticky(static_cast<CUresult>(code))) << code;
  }
  for (const int code : {0, 1, 2, 3, 100, 600, 701, 712, 713, 720, 800, 801, 900, 901}) {
    EXPECT_FALSE(is_sticky(static_cast<CUresult>(code))) << code;
  }
}

}  // namespace
}  // namespace fastserve
