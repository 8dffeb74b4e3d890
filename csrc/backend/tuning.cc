#include "backend/tuning.h"

#include <algorithm>
#include <cstdio>
#include <mutex>

namespace fastserve {
namespace {

std::mutex& settings_mutex() {
  static std::mutex mutex;
  return mutex;
}
TuneSettings& settings() {
  static TuneSettings held;
  return held;
}

Nanos best_lone(std::span<const StreamsMeasured> measured) {
  return std::ranges::min(measured, {}, &StreamsMeasured::lone_ns).lone_ns;
}

}  // namespace

TuneSettings tune_settings() {
  const std::lock_guard lock(settings_mutex());
  return settings();
}

void set_tune_settings(const TuneSettings& next) {
  const std::lock_guard lock(settings_mutex());
  settings() = next;
}

std::vector<int> streams_ladder(int threads, int nodes) {
  std::vector<int> ladder{1};
  for (int streams = std::max(nodes, 1); streams < threads; streams *= 2) ladder.push_back(streams);
  ladder.push_back(std::max(threads, 1));
  std::ranges::sort(ladder);
  const auto twice = std::unique(ladder.begin(), ladder.end());
  ladder.erase(twice, ladder.end());
  return ladder;
}

bool lone_is_good(Nanos lone_ns, Nanos best_ns) {
  constexpr Nanos kUnfelt = 200 * kMicrosecond;
  const Nanos slack = std::max(best_ns * 3 / 100, std::min(best_ns / 10, kUnfelt));
  return lone_ns <= best_ns + slack;
}

bool lone_pays(Nanos saved_ns, Nanos run_ns) {
  constexpr Nanos kFelt = 50 * kMicrosecond;
  return saved_ns >= std::max(run_ns / 200, kFelt);
}

std::size_t choose_streams(std::span<const StreamsMeasured> measured) {
  constexpr double kWorthMoreStreams = 1.05;
  const Nanos best_ns = best_lone(measured);
  double best_rate = 0;
  for (const StreamsMeasured& one : measured) {
    if (lone_is_good(one.lone_ns, best_ns)) best_rate = std::max(best_rate, one.rows_per_s);
  }
  for (std::size_t i = 0; i < measured.size(); ++i) {
    if (!lone_is_good(measured[i].lone_ns, best_ns)) continue;
    if (measured[i].rows_per_s * kWorthMoreStreams >= best_rate) return i;
  }
  return 0;  // not reached: the one with best_rate passes
}

std::string in_words(std::span<const StreamsMeasured> measured) {
  std::string text;
  for (const StreamsMeasured& one : measured) {
    char line[128];
    const double alone_ms = static_cast<double>(one.lone_ns) / static_cast<double>(kMillisecond);
    if (one.rows_per_s > 0) {
      std::snprintf(line, sizeof line, "%d %s: %.0f rows/s, alone %.3g ms", one.streams,
                    one.streams == 1 ? "stream" : "streams", one.rows_per_s, alone_ms);
    } else {
      std::snprintf(line, sizeof line, "%d %s: alone %.3g ms", one.streams,
                    one.streams == 1 ? "stream" : "streams", alone_ms);
    }
    text += (text.empty() ? "" : "; ") + std::string(line);
  }
  return text;
}

}  // namespace fastserve
