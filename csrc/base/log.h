// The log sink of the C++ side: one function that the embedding layer installs; stderr when there is none.
// Never called on the hot path. Any thread may log; the sink must be thread-safe.
#pragma once

#include <string_view>

namespace fastserve {

enum class LogLevel { kDebug = 10, kInfo = 20, kWarning = 30, kError = 40 };

using LogSink = void (*)(LogLevel level, std::string_view message);

// Installs the sink (nullptr = stderr for warnings and errors, nothing below) and returns the former one.
LogSink set_log_sink(LogSink sink);
void log(LogLevel level, std::string_view message);

}  // namespace fastserve
