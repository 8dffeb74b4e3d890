// What the kernel says about processes: pinning and CPU time.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <ctime>
#include <string>
#include <vector>

namespace fastserve::bench {

// Monotonic time in nanoseconds.
std::int64_t now_ns();

// A whole file. Throws std::runtime_error naming the path.
std::string read_file(const std::string& path);

// Pins the calling process to one CPU; cpu < 0 leaves it alone. False if the kernel refuses.
bool pin_to_cpu(int cpu);

// User + system CPU time of whole processes, in nanoseconds, threads that ended included
// (clock_getcpuclockid(3): the scheduler's own sum, not the 10 ms ticks of /proc/PID/stat).
// A thread that is running right now is behind by at most one scheduler tick: measure for a second or more.
class CpuClock {
 public:
  // Throws std::runtime_error naming the pid if it does not exist.
  explicit CpuClock(const std::vector<pid_t>& pids);
  bool empty() const { return clocks_.empty(); }
  std::int64_t now_ns() const;

 private:
  std::vector<clockid_t> clocks_;
};

}  // namespace fastserve::bench
