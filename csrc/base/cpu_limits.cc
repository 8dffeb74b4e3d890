#include "base/cpu_limits.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <system_error>

namespace fastserve {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// "" stays; "/a/b" -> "/a" -> "".
void go_up(std::string& group) { group.resize(std::min(group.size(), group.rfind('/'))); }

// The smallest of `quota(directory)` for `mount` + group and every directory above it, down to `mount` itself.
template <class Quota>
void take_smallest(const std::string& mount, std::string group, Quota quota,
                   std::optional<double>& smallest) {
  if (group == "/") group.clear();
  for (;; go_up(group)) {
    const std::optional<double> cpus = quota(mount + group);
    if (cpus && (!smallest || *cpus < *smallest)) smallest = cpus;
    if (group.empty()) return;
  }
}

std::optional<double> quota_v2(const std::string& directory) {
  return parse_cpu_max(first_line(directory + "/cpu.max"));
}

std::optional<double> quota_v1(const std::string& directory) {
  return parse_cpu_max(first_line(directory + "/cpu.cfs_quota_us") + " " +
                       first_line(directory + "/cpu.cfs_period_us"));
}

// One line of /proc/self/cgroup: `id:controllers:path`; version 2 has no controllers.
struct Line {
  std::string controllers;
  std::string path;
};

std::optional<Line> parse_line(const std::string& text) {
  const std::size_t first = text.find(':');
  const std::size_t second = first == std::string::npos ? first : text.find(':', first + 1);
  if (second == std::string::npos) return std::nullopt;
  Line line{text.substr(first + 1, second - first - 1), text.substr(second + 1)};
  // A group outside the namespace's root reads "/../other": nothing of it can be seen from here.
  if (line.path.empty() || line.path[0] != '/' || line.path.find("..") != std::string::npos) line.path = "/";
  return line;
}

bool has_cpu(const std::string& controllers) {
  return ("," + controllers + ",").find(",cpu,") != std::string::npos;
}

}  // namespace

std::optional<double> cgroup_cpus(const CgroupFiles& files) {
  std::string v2 = "/";
  std::string v1 = "/";
  std::vector<std::string> v1_mounts{"cpu", "cpu,cpuacct", "cpuacct,cpu"};
  std::ifstream self(files.self);
  for (std::string text; std::getline(self, text);) {
    const std::optional<Line> line = parse_line(text);
    if (!line) continue;
    if (line->controllers.empty()) v2 = line->path;
    if (!has_cpu(line->controllers)) continue;
    v1 = line->path;
    v1_mounts.push_back(line->controllers);
  }
  std::optional<double> smallest;
  for (const char* below : {"", "/unified"}) take_smallest(files.root + below, v2, quota_v2, smallest);
  for (const std::string& mount : v1_mounts) take_smallest(files.root + "/" + mount, v1, quota_v1, smallest);
  return smallest;
}

std::optional<double> parse_cpu_max(std::string_view text) {
  std::int64_t quota_us = 0;
  std::int64_t period_us = 0;
  const char* const end = text.data() + text.size();
  const auto quota = std::from_chars(text.data(), end, quota_us);
  if (quota.ec != std::errc() || quota.ptr == end || *quota.ptr != ' ') return std::nullopt;
  const auto period = std::from_chars(quota.ptr + 1, end, period_us);
  if (period.ec != std::errc() || quota_us <= 0 || period_us <= 0) return std::nullopt;
  return static_cast<double>(quota_us) / static_cast<double>(period_us);
}

CpuWait cpu_wait(const std::string& tasks) {
  CpuWait sum;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(tasks, error)) {
    std::ifstream file(entry.path() / "schedstat");
    CpuWait of_thread;
    if (!(file >> of_thread.ran >> of_thread.waited)) continue;
    sum.ran += of_thread.ran;
    sum.waited += of_thread.waited;
  }
  return sum;
}

std::vector<int> affinity_cpus() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  std::vector<int> cpus;
  // Of the process (its main thread): a loader thread may be bound to less for a while.
  if (::sched_getaffinity(::getpid(), sizeof allowed, &allowed) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &allowed)) cpus.push_back(cpu);
    }
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

int usable_cpus(int affinity, std::optional<double> quota) {
  int cpus = affinity;
  if (quota && *quota < affinity) cpus = static_cast<int>(std::ceil(*quota));
  return std::max(cpus, 1);
}

}  // namespace fastserve
