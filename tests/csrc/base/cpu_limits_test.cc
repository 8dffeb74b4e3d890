#include "base/cpu_limits.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>

namespace fastserve {
namespace {

namespace fs = std::filesystem;

// A made-up /sys/fs/cgroup and /proc/self/cgroup.
class CgroupTree : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    base_ =
        fs::temp_directory_path() / ("fastserve_cgroup_" + std::to_string(::getpid()) + "_" + test->name());
    fs::create_directories(base_ / "sys");
    files_ = {(base_ / "sys").string(), (base_ / "self").string()};
  }
  void TearDown() override { fs::remove_all(base_); }

  void self(const std::string& lines) { std::ofstream(files_.self) << lines; }
  void file(const std::string& path, const std::string& content) {
    const fs::path at = base_ / "sys" / path;
    fs::create_directories(at.parent_path());
    std::ofstream(at) << content << "\n";
  }
  void v1(const std::string& group, const std::string& quota_us, const std::string& period_us = "100000") {
    file(group + "/cpu.cfs_quota_us", quota_us);
    file(group + "/cpu.cfs_period_us", period_us);
  }
  std::optional<double> cpus() const { return cgroup_cpus(files_); }

  fs::path base_;
  CgroupFiles files_;
};

TEST_F(CgroupTree, NothingThereIsNoLimit) {
  EXPECT_EQ(cpus(), std::nullopt);
  self("0::/\n");
  EXPECT_EQ(cpus(), std::nullopt);
}

TEST_F(CgroupTree, Version2OfAContainerIsItsRoot) {
  self("0::/\n");
  file("cpu.max", "150000 100000");
  EXPECT_EQ(cpus(), 1.5);
}

TEST_F(CgroupTree, Version2WithoutQuota) {
  self("0::/a\n");
  file("a/cpu.max", "max 100000");
  EXPECT_EQ(cpus(), std::nullopt);
}

TEST_F(CgroupTree, TheSmallestUpTheTreeHolds) {
  self("0::/kubepods/pod1/main\n");
  file("kubepods/pod1/main/cpu.max", "max 100000");
  file("kubepods/pod1/cpu.max", "200000 100000");
  file("kubepods/cpu.max", "800000 100000");
  EXPECT_EQ(cpus(), 2.0);
  file("kubepods/pod1/main/cpu.max", "400000 100000");
  EXPECT_EQ(cpus(), 2.0);
  file("kubepods/pod1/main/cpu.max", "50000 100000");
  EXPECT_EQ(cpus(), 0.5);
}

TEST_F(CgroupTree, APathOfTheHostThatIsNotVisibleEndsAtTheRoot) {
  self("0::/docker/0123abc\n");
  file("cpu.max", "300000 100000");
  EXPECT_EQ(cpus(), 3.0);
  self("0::/../other\n");
  EXPECT_EQ(cpus(), 3.0);
}

TEST_F(CgroupTree, Version1) {
  self("5:memory:/a\n4:cpu,cpuacct:/a/b\n0::/\n");
  v1("cpu,cpuacct/a/b", "-1");
  EXPECT_EQ(cpus(), std::nullopt);
  v1("cpu,cpuacct/a", "250000");
  EXPECT_EQ(cpus(), 2.5);
  v1("cpu,cpuacct/a/b", "20000", "10000");
  EXPECT_EQ(cpus(), 2.0);
}

TEST_F(CgroupTree, Version1UnderTheControllersOwnName) {
  self("1:cpu:/\n");
  v1("cpu", "100000");
  EXPECT_EQ(cpus(), 1.0);
}

TEST_F(CgroupTree, OtherControllersOfVersion1DoNotCount) {
  self("1:cpuset,cpuacct:/x\n");
  v1("cpu/x", "100000");  // not where this process is
  EXPECT_EQ(cpus(), std::nullopt);
}

TEST_F(CgroupTree, BothVersionsMounted) {
  self("1:cpu:/\n0::/\n");
  v1("cpu", "400000");
  file("unified/cpu.max", "300000 100000");
  EXPECT_EQ(cpus(), 3.0);
}

TEST_F(CgroupTree, NonsenseIsNoLimit) {
  self("no colons\n:\n0::relative\n");
  file("cpu.max", "a lot");
  v1("cpu", "100000", "0");
  EXPECT_EQ(cpus(), std::nullopt);
}

TEST(CpuMax, QuotaByPeriod) {
  EXPECT_EQ(parse_cpu_max("150000 100000\n"), 1.5);
  EXPECT_EQ(parse_cpu_max("400000 100000"), 4.0);
  EXPECT_EQ(parse_cpu_max("max 100000"), std::nullopt);
  EXPECT_EQ(parse_cpu_max("-1 100000"), std::nullopt);
  EXPECT_EQ(parse_cpu_max("100000 0"), std::nullopt);
  EXPECT_EQ(parse_cpu_max("100000"), std::nullopt);
  EXPECT_EQ(parse_cpu_max(""), std::nullopt);
}

TEST(UsableCpus, TheSmallerOfAffinityAndQuotaRoundedUp) {
  EXPECT_EQ(usable_cpus(8, std::nullopt), 8);
  EXPECT_EQ(usable_cpus(8, 2.0), 2);
  EXPECT_EQ(usable_cpus(8, 2.1), 3);
  EXPECT_EQ(usable_cpus(2, 2.1), 2);
  EXPECT_EQ(usable_cpus(2, 0.1), 1);
  EXPECT_EQ(usable_cpus(0, std::nullopt), 1);
}

TEST_F(CgroupTree, WaitsOfAllThreadsTogether) {
  file("task/1/schedstat", "100 20 3");
  file("task/2/schedstat", "7 1 9");
  file("task/3/schedstat", "");
  const CpuWait sum = cpu_wait((base_ / "sys" / "task").string());
  EXPECT_EQ(sum.ran, 107);
  EXPECT_EQ(sum.waited, 21);
  EXPECT_EQ(cpu_wait("/nowhere").ran, 0);
}

TEST(UsableCpus, AffinityOfThisProcess) {
  const auto cpus = affinity_cpus();
  ASSERT_FALSE(cpus.empty());
  EXPECT_TRUE(std::is_sorted(cpus.begin(), cpus.end()));
}

}  // namespace
}  // namespace fastserve
