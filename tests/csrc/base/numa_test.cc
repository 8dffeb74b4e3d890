#include "base/numa.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace fastserve {
namespace {

namespace fs = std::filesystem;
using Cpus = std::vector<int>;

TEST(Numa, CpuLists) {
  EXPECT_EQ(parse_cpu_list("0-3,8,10-11\n"), (Cpus{0, 1, 2, 3, 8, 10, 11}));
  EXPECT_EQ(parse_cpu_list("5"), (Cpus{5}));
  EXPECT_EQ(parse_cpu_list("2,1,1-2"), (Cpus{1, 2}));
  EXPECT_EQ(parse_cpu_list(""), Cpus{});
  EXPECT_EQ(parse_cpu_list("a,-1,3-,4-2,7"), (Cpus{7}));
  EXPECT_EQ(parse_cpu_list("0-99999999999"), Cpus{});
}

class NodesTree : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    base_ = fs::temp_directory_path() / ("fastserve_numa_" + std::to_string(::getpid()) + "_" + test->name());
    fs::create_directories(base_);
  }
  void TearDown() override { fs::remove_all(base_); }
  void node(int id, const std::string& cpus) {
    const fs::path at = base_ / ("node" + std::to_string(id));
    fs::create_directories(at);
    std::ofstream(at / "cpulist") << cpus << "\n";
  }
  std::vector<NumaNode> read(const Cpus& allowed) const { return read_nodes(allowed, base_.string()); }
  fs::path base_;
};

TEST_F(NodesTree, NodesById) {
  node(10, "4-5");
  node(0, "0-1");
  node(2, "2-3");
  std::ofstream(base_ / "online") << "0,2,10\n";
  EXPECT_EQ(read({0, 1, 2, 3, 4, 5}), (std::vector<NumaNode>{{0, {0, 1}}, {2, {2, 3}}, {10, {4, 5}}}));
}

TEST_F(NodesTree, OnlyWhatTheProcessMayUse) {
  node(0, "0-3");
  node(1, "4-7");
  EXPECT_EQ(read({2, 3}), (std::vector<NumaNode>{{0, {2, 3}}}));
}

TEST_F(NodesTree, MemoryWithoutCpusIsNoPlaceToCompute) {
  node(0, "0-1");
  node(1, "");
  EXPECT_EQ(read({0, 1}).size(), 1U);
}

TEST_F(NodesTree, NoDirectoryNoNodes) { EXPECT_TRUE(read_nodes(Cpus{0}, "/nowhere").empty()); }

const NumaNode kSmall{0, {0, 1}};
const NumaNode kLarge{1, {2, 3, 4}};

TEST(Places, OneNodeBindsNobody) {
  const std::vector<NumaNode> nodes{kSmall};
  EXPECT_EQ(place_instances(3, nodes), (std::vector<Cpus>{{}, {}, {}}));
  EXPECT_EQ(place_instances(2, {}), (std::vector<Cpus>{{}, {}}));
}

TEST(Places, OneInstanceHasTheWholeMachine) {
  const std::vector<NumaNode> nodes{kSmall, kLarge};
  EXPECT_EQ(place_instances(1, nodes), (std::vector<Cpus>{{}}));
}

TEST(Places, InstancesAreDealtOutTheLargestNodeFirst) {
  const std::vector<NumaNode> nodes{kSmall, kLarge};
  EXPECT_EQ(place_instances(3, nodes), (std::vector<Cpus>{{2, 3, 4}, {0, 1}, {2, 3, 4}}));
}

TEST(Places, TheConfigurationsCpusHold) {
  const std::vector<NumaNode> nodes{kSmall, kLarge};
  const std::vector<Cpus> pinned{{7}, {}};
  EXPECT_EQ(place_instances(4, nodes, pinned), (std::vector<Cpus>{{7}, {2, 3, 4}, {7}, {0, 1}}));
  EXPECT_EQ(place_instances(2, {}, pinned), (std::vector<Cpus>{{7}, {}}));
}

}  // namespace
}  // namespace fastserve
