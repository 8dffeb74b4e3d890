#include "backend/worker_policy.h"

#include <sys/wait.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstring>

namespace fastserve {
namespace {

Status read_seconds(const std::map<std::string, std::string>& parameters, const std::string& name,
                    Nanos& out) {
  constexpr double kMostSeconds = 86'400;
  const auto found = parameters.find(name);
  if (found == parameters.end()) return Status::ok();
  const std::string& text = found->second;
  double seconds = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size() ||
      !(seconds >= 0 && seconds <= kMostSeconds)) {
    return invalid_argument("parameters[\"" + name + "\"]: got \"" + text +
                            "\", want seconds from 0 (no limit) to 86400");
  }
  out = static_cast<Nanos>(seconds * static_cast<double>(kSecond));
  return Status::ok();
}

}  // namespace

Result<WorkerLimits> read_worker_limits(const std::map<std::string, std::string>& parameters) {
  WorkerLimits limits;
  FS_RETURN_IF_ERROR(read_seconds(parameters, "initialize_timeout_s", limits.initialize_ns));
  FS_RETURN_IF_ERROR(read_seconds(parameters, "execute_timeout_s", limits.execute_ns));
  FS_RETURN_IF_ERROR(read_seconds(parameters, "finalize_timeout_s", limits.finalize_ns));
  return limits;
}

Nanos RestartPolicy::died(Nanos up_since, bool answered, Nanos now) {
  constexpr int kMostDoublings = 20;
  if (up_since != 0 && answered && now - up_since >= kHealthy) deaths_ = 0;
  ++deaths_;
  if (deaths_ == 1) return 0;
  return std::min(kFirstDelay << std::min(deaths_ - 2, kMostDoublings), kMostDelay);
}

std::string death_text(int code, int number) {
  if (code == CLD_EXITED) return "it exited with status " + std::to_string(number);
  if (code != CLD_KILLED && code != CLD_DUMPED) return "it ended, nobody knows how";
  std::string text = "it was ended by signal " + std::to_string(number) + " (" + ::strsignal(number);
  if (number == SIGKILL) text += "; the kernel does that when memory runs out";
  return text + ")";
}

}  // namespace fastserve
