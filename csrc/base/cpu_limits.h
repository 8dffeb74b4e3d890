// How many CPUs this process may use: its affinity, and the CPU quota of its cgroup.
// Thread: any; reads files, so not on the hot path.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace fastserve {

// Where the kernel says it (cgroups(7)); paths, so that tests can make a tree up.
struct CgroupFiles {
  std::string root = "/sys/fs/cgroup";
  std::string self = "/proc/self/cgroup";
};

// The smallest quota on the way from the process's own group to the root, as CPUs (1.5 = 150 ms in each 100 ms). Reads
// version 2 (`cpu.max`, also below `unified/`) and version 1 (`cpu.cfs_quota_us` below `cpu/`, `cpu,cpuacct/`). In a
// container /proc/self/cgroup may name a path of the host: what is missing below `root` is skipped, the root always looked at.
// nullopt: no limit.
std::optional<double> cgroup_cpus(const CgroupFiles& files = {});

// The content of cgroup v2's cpu.max ("150000 100000", "max 100000"; microseconds of quota and period) as CPUs.
// nullopt: no limit, or not understood.
std::optional<double> parse_cpu_max(std::string_view text);

// What this process's threads ran, and how long they were ready to but had no CPU, because others had it; since they began.
// Zeros where the kernel does not count it (/proc/self/task/*/schedstat). Threads that end take their share with them.
struct CpuWait {
  Nanos ran = 0;
  Nanos waited = 0;
};
CpuWait cpu_wait(const std::string& tasks = "/proc/self/task");

// The main thread's affinity mask, ascending; {0} when the kernel does not say.
std::vector<int> affinity_cpus();

// `quota` rounded up: a fraction of a CPU is still a thread's worth of it, and rounding down would leave it unused.
int usable_cpus(int affinity, std::optional<double> quota);

}  // namespace fastserve
