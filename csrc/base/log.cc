#include "base/log.h"

#include <atomic>
#include <cstdio>

namespace fastserve {
namespace {

std::atomic<LogSink> g_sink{nullptr};  // release in set_log_sink, acquire in log

void to_stderr(LogLevel level, std::string_view message) {
  if (level < LogLevel::kWarning) return;
  std::fprintf(stderr, "fastserve: %.*s\n", static_cast<int>(message.size()), message.data());
}

}  // namespace

LogSink set_log_sink(LogSink sink) { return g_sink.exchange(sink, std::memory_order_acq_rel); }

void log(LogLevel level, std::string_view message) {
  const LogSink sink = g_sink.load(std::memory_order_acquire);
  (sink != nullptr ? sink : &to_stderr)(level, message);
}

}  // namespace fastserve
