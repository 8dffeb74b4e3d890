#include "gpu/rows.h"

#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

extern char** environ;  // NOLINT: POSIX's name

namespace fastserve::gpu_rows {
namespace {

double seconds_of(clockid_t clock) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

std::string read_all(int fd) {
  std::string all;
  std::vector<char> part(4096);
  for (ssize_t got = 0; (got = ::read(fd, part.data(), part.size())) > 0;)
    all.append(part.data(), static_cast<std::size_t>(got));
  return all;
}

}  // namespace

void Outcome::gate(bool holds, const std::string& floor) {
  floors_.push_back(floor);
  if (!holds) broken_.push_back(floor);
}

void Outcome::timing_gate(bool holds, const std::string& floor) { gate(holds || simulated_, floor); }

std::string Outcome::json(std::string_view row) const {
  bench::JsonObject about;
  about.add("row", row);
  about.add("status", !skipped_.empty() ? "skipped" : failed() ? "failed" : "passed");
  if (!skipped_.empty()) about.add("reason", skipped_);
  about.add("floors", floors_).add("broken", broken_).add("simulated", simulated_);
  std::string text = about.str();
  text.back() = ',';
  return text + "\"figures\": " + figures_.str() + "}";
}

double quantile(std::vector<double>& samples, double q) {
  if (samples.empty()) return 0;
  const auto at = static_cast<std::ptrdiff_t>(q * static_cast<double>(samples.size() - 1));
  std::nth_element(samples.begin(), samples.begin() + at, samples.end());
  return samples[static_cast<std::size_t>(at)];
}

double wall_seconds() { return seconds_of(CLOCK_MONOTONIC); }
double cpu_seconds() { return seconds_of(CLOCK_PROCESS_CPUTIME_ID); }

int run_again(const Options& options, const std::string& word, std::string& out) {
  int ends[2] = {-1, -1};
  if (::pipe(ends) != 0) throw std::runtime_error("pipe failed");
  posix_spawn_file_actions_t actions{};
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  ::posix_spawn_file_actions_addclose(&actions, ends[0]);
  ::posix_spawn_file_actions_addclose(&actions, ends[1]);
  std::vector<std::string> words = {"gpu_rows",      word,         "--kernels",
                                    options.kernels, "--argument", options.argument};
  if (options.brief) words.emplace_back("--short");
  std::vector<char*> pointers;
  for (std::string& each : words) pointers.push_back(each.data());
  pointers.push_back(nullptr);
  pid_t child = 0;
  const int spawned = ::posix_spawn(&child, "/proc/self/exe", &actions, nullptr, pointers.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  if (spawned != 0) throw std::runtime_error("cannot start this program again");
  out = read_all(ends[0]);
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace fastserve::gpu_rows
