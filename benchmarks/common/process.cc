#include "common/process.h"

#include <sched.h>

#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

namespace fastserve::bench {
namespace {

std::int64_t read_ns(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

std::int64_t now_ns() { return read_ns(CLOCK_MONOTONIC); }

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

bool pin_to_cpu(int cpu) {
  if (cpu < 0) return true;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu), &set);
  return sched_setaffinity(0, sizeof(set), &set) == 0;
}

CpuClock::CpuClock(const std::vector<pid_t>& pids) {
  for (const pid_t pid : pids) {
    clockid_t clock{};
    if (clock_getcpuclockid(pid, &clock) != 0) throw std::runtime_error("no process " + std::to_string(pid));
    clocks_.push_back(clock);
  }
}

std::int64_t CpuClock::now_ns() const {
  std::int64_t sum = 0;
  for (const clockid_t clock : clocks_) sum += read_ns(clock);
  return sum;
}

}  // namespace fastserve::bench
