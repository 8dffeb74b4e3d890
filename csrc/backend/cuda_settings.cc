#include "backend/cuda_settings.h"

#include <charconv>

#include "backend/cuda_source.h"

namespace fastserve {
namespace {

using Parameters = std::map<std::string, std::string>;

Status wrong(const std::string& name, const std::string& got, const std::string& want) {
  return invalid_argument("parameters[\"" + name + "\"]: got \"" + got + "\", want " + want);
}

Status read_number(const Parameters& parameters, const std::string& name, std::int64_t least,
                   std::int64_t most, std::int64_t& out) {
  const auto found = parameters.find(name);
  if (found == parameters.end()) return Status::ok();
  const std::string& text = found->second;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    return wrong(name, text, "a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  }
  out = value;
  return Status::ok();
}

// Whether it is the first of the two words.
Status read_choice(const Parameters& parameters, const std::string& name, const char* first,
                   const char* second, bool& out) {
  const auto found = parameters.find(name);
  if (found == parameters.end()) return Status::ok();
  if (found->second != first && found->second != second)
    return wrong(name, found->second, "\"" + std::string(first) + "\" or \"" + second + "\"");
  out = found->second == first;
  return Status::ok();
}

}  // namespace

Result<CudaSettings> read_cuda_settings(const Parameters& parameters) {
  constexpr std::int64_t kMostWatchdogMs = 3'600'000;  // an hour
  constexpr std::int64_t kMostPriority = 31;
  CudaSettings settings;
  std::int64_t lanes = settings.lanes;
  std::int64_t watchdog_ms = settings.watchdog_ns / kMillisecond;
  std::int64_t priority = settings.stream_priority;
  bool polls = true;
  FS_RETURN_IF_ERROR(read_number(parameters, "lanes", 1, kMaxLanes, lanes));
  FS_RETURN_IF_ERROR(read_number(parameters, "watchdog_ms", 0, kMostWatchdogMs, watchdog_ms));
  FS_RETURN_IF_ERROR(read_number(parameters, "stream_priority", 0, kMostPriority, priority));
  FS_RETURN_IF_ERROR(read_choice(parameters, "graphs", "on", "off", settings.graphs));
  FS_RETURN_IF_ERROR(read_choice(parameters, "completion", "poll", "blocking", polls));
  settings.lanes = static_cast<int>(lanes);
  settings.watchdog_ns = watchdog_ms * kMillisecond;
  settings.stream_priority = static_cast<int>(priority);
  if (!polls) settings.completion = CudaSettings::Completion::kBlocking;
  return settings;
}

}  // namespace fastserve
