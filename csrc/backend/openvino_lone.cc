#include "backend/openvino_lone.h"

#include <cstdio>

#include "backend/openvino_measure.h"
#include "backend/quiet_time.h"
#include "backend/tuning.h"
#include "base/log.h"

namespace fastserve {
namespace {

std::string in_words(const TurnsMeasured& turns) {
  const auto ms = [](Nanos ns) { return static_cast<double>(ns) / static_cast<double>(kMillisecond); };
  char text[96];
  std::snprintf(text, sizeof text, "alone %.3g ms, %.2g ms %s with a fixed shape", ms(turns.first_ns),
                ms(std::abs(turns.saved_ns)), turns.saved_ns >= 0 ? "less" : "more");
  return text;
}

LoneFound unknown(const LoneTask& task, const std::string& reason) {
  log(LogLevel::kInfo, "model '" + task.model +
                           "': whether one row wants a model of its own is not measured (" + reason +
                           "), until its next load");
  return {Lone::kUnknown, reason, std::nullopt};
}

}  // namespace

LoneFound measure_lone_row(const LoneTask& task) {
  const TuneSettings settings = tune_settings();
  auto quiet = QuietTime::begin(settings, settings.most_ns);
  if (!quiet) return unknown(task, "others were at work");
  const PreparingScope preparing;
  ov::CompiledModel own = task.compile(1);
  ov::CompiledModel shared = task.shared;  // counted, not copied
  const auto turns =
      measure_in_turns(shared, own, settings.most_ns / 2, [&quiet] { return quiet->disturbed(); });
  if (quiet->disturbed()) return unknown(task, "requests came meanwhile");
  if (!turns) return unknown(task, "zeros are no input for it");
  if (quiet->machine_is_busy()) return unknown(task, "the machine is busy with something else");
  const std::string measured = in_words(*turns);
  if (!lone_pays(turns->saved_ns, turns->first_ns)) return {Lone::kShared, measured, std::nullopt};
  log(LogLevel::kInfo,
      "model '" + task.model + "': one row gets a compiled model of its own (" + measured + ")");
  return {Lone::kOwn, measured, std::move(own)};
}

}  // namespace fastserve
