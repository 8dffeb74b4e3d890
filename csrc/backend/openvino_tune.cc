#include "backend/openvino_tune.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <openvino/op/constant.hpp>
#include <utility>
#include <vector>

#include "backend/openvino_measure.h"
#include "backend/quiet_time.h"
#include "backend/tuning.h"
#include "base/log.h"

namespace fastserve {
namespace {

constexpr Nanos kRateWindow = 80 * kMillisecond;
constexpr const char* kBusy = "the machine is busy with something else";
constexpr std::int64_t kManyRows = 8;  // gains of batching beyond it are small where streams compete

std::string hex(std::uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  std::string all;
  std::uint64_t flags = 0;
  for (std::string line; std::getline(file, line) && !line.empty();) {  // the first CPU's
    if (line.starts_with("model name")) all += line.substr(std::min(line.find(':') + 2, line.size()));
    if (line.starts_with("flags") || line.starts_with("Features"))
      flags = hash_bytes(line.data(), line.size());
  }
  return all + " " + hex(flags);
}

std::uint64_t hash_text(const std::string& text, std::uint64_t seed) {
  return hash_bytes(text.data(), text.size(), seed);
}

// Operations, shapes and weights; names do not matter.
std::uint64_t hash_model(const ov::Model& model) {
  std::uint64_t hash = hash_text("model", hash_bytes(nullptr, 0));
  for (const auto& node : model.get_ordered_ops()) {
    hash = hash_text(node->get_type_name(), hash);
    for (const auto& output : node->outputs()) {
      hash = hash_text(output.get_element_type().to_string() + output.get_partial_shape().to_string(), hash);
    }
    if (const auto* constant = ov::as_type<const ov::op::v0::Constant>(node.get())) {
      if (constant->get_element_type() != ov::element::string)
        hash = hash_bytes(constant->get_data_ptr(), constant->get_byte_size(), hash);
    }
  }
  return hash;
}

std::string one_line(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  return text;
}

class Tuner {
 public:
  Tuner(const TuneTask& task, QuietTime quiet) : task_(task), quiet_(std::move(quiet)) {}

  Tuned run() {
    const PreparingScope preparing;
    best_ = compile(1);
    measured_ = {{1, 0, 0}};
    if (!measure_alone(best_, measured_[0])) return stopped("zeros are no input for it");
    if (quiet_.machine_is_busy()) return stopped(kBusy);
    for (const int streams : streams_ladder(task_.threads, task_.nodes)) {
      if (streams == 1) continue;
      if (!time_for_another()) break;
      ov::CompiledModel candidate = compile(streams);
      StreamsMeasured here{streams, 0, 0};
      const bool done = compare(best_, measured_[chosen_], candidate, here);
      if (quiet_.disturbed()) return stopped("requests came meanwhile");
      if (quiet_.machine_is_busy()) return stopped(kBusy);
      if (!done) break;
      adopt(here, std::move(candidate));
      if (here.rows_per_s == 0)
        break;  // a lone request is slower: with still fewer threads each even more so
    }
    return result();
  }

 private:
  ov::CompiledModel compile(int streams) {
    const Nanos begin = monotonic_now();
    report(streams, 0);
    ov::CompiledModel compiled = task_.compile(streams);
    compile_ns_ = monotonic_now() - begin;
    if (streams == 1) quiet_.restart_clock();  // that one is compiled in any case
    return compiled;
  }

  bool measure_alone(ov::CompiledModel& compiled, StreamsMeasured& out) {
    report(out.streams, 1);
    const auto took = measure_lone(compiled, false);
    if (!took) return false;
    out.lone_ns = out.lone_ns == 0 ? *took : std::min(out.lone_ns, *took);
    return true;
  }

  // Both in turn, so that what else happens on the machine meets both.
  bool compare(ov::CompiledModel& a, StreamsMeasured& of_a, ov::CompiledModel& b, StreamsMeasured& of_b) {
    if (!measure_alone(b, of_b) || !measure_alone(a, of_a) || !measure_alone(b, of_b)) return false;
    if (!lone_is_good(of_b.lone_ns, of_a.lone_ns)) return true;
    std::vector<std::int64_t> sizes{std::min<std::int64_t>(task_.max_rows, 1)};
    const std::int64_t many = std::min(task_.max_rows, kManyRows);
    if (many > 1 && fits_in_time(of_a.lone_ns * many)) sizes.push_back(many);
    constexpr int kRounds = 2;
    for (int round = 0; round < kRounds; ++round) {
      for (const std::int64_t rows : sizes) {
        if (quiet_.left() <= 0 && of_b.rows_per_s > 0) return true;
        if (!measure_busy(a, of_a, rows) || !measure_busy(b, of_b, rows)) return false;
      }
    }
    return true;
  }

  bool measure_busy(ov::CompiledModel& compiled, StreamsMeasured& out, std::int64_t rows) {
    report(out.streams, std::max<std::int64_t>(rows, 1));
    const auto rate =
        measure_rate(compiled, {out.streams, rows, kRateWindow, [this] { return quiet_.disturbed(); }});
    if (!rate) return false;
    out.rows_per_s = std::max(out.rows_per_s, *rate);
    return true;
  }

  bool time_for_another() const { return quiet_.left() > compile_ns_; }
  // Runs of `run_ns` for both, three of each, twice.
  bool fits_in_time(Nanos run_ns) const { return 12 * run_ns < quiet_.left(); }

  void report(int streams, std::int64_t rows) const {
    if (task_.progress == nullptr || !*task_.progress) return;
    const std::string what = words(streams);
    const std::string text =
        rows == 0 ? "compiling for " + what
                  : "measuring " + what + " x " + std::to_string(rows) + (rows == 1 ? " row" : " rows");
    (*task_.progress)(task_.fraction, text);
  }

  void adopt(const StreamsMeasured& measured, ov::CompiledModel candidate) {
    measured_.push_back(measured);
    const std::size_t choice = choose_streams(measured_);
    if (choice == measured_.size() - 1) {
      best_ = std::move(candidate);
    } else if (choice != chosen_) {
      best_ = compile(measured_[choice].streams);
    }
    chosen_ = choice;
  }

  Tuned stopped(const std::string& reason) {
    const int streams = measured_[chosen_].streams;
    log(LogLevel::kInfo, "model '" + task_.model + "' is not measured to the end (" + reason +
                             "): " + words(streams) + " until its next load");
    return {{streams, 0, {}, Lone::kUnknown, {}},
            "not measured to the end: " + reason,
            std::move(best_),
            false,
            false};
  }

  Tuned result() {
    Tuned out{{measured_[chosen_].streams, 0, in_words(measured_), Lone::kUnknown, {}},
              "measured",
              std::move(best_),
              true,
              true};
    log(LogLevel::kInfo, "model '" + task_.model + "': " + words(out.shape.streams) + " chosen in " +
                             std::to_string(quiet_.passed() / kMillisecond) + " ms (" + out.shape.measured +
                             ")");
    return out;
  }

  static std::string words(int streams) {
    return std::to_string(streams) + (streams == 1 ? " stream" : " streams");
  }

  const TuneTask& task_;
  QuietTime quiet_;
  Nanos compile_ns_ = 0;
  ov::CompiledModel best_;
  std::vector<StreamsMeasured> measured_;
  std::size_t chosen_ = 0;
};

}  // namespace

Tuned tune_streams(const TuneTask& task) {
  const TuneSettings settings = tune_settings();
  if (const auto known = TuneCache(settings.cache_directory).find(task.key))
    return {*known, "from the cache", std::nullopt, false, true};
  if (task.threads == 1) return {{}, "default: one thread is all there is", std::nullopt, false, true};
  auto quiet = QuietTime::begin(settings, settings.most_ns);
  if (!quiet) {
    log(LogLevel::kInfo, "model '" + task.model +
                             "' is not measured, because others are at work: one stream " +
                             "until its next load");
    return {{}, "default: others were at work", std::nullopt, false, false};
  }
  return Tuner(task, std::move(*quiet)).run();
}

std::string tune_key(const ov::Model& model, const std::string& options, int threads) {
  return "model " + hex(hash_model(model)) + "\ncpu " + one_line(cpu_model()) + "\nthreads " +
         std::to_string(threads) + "\nopenvino " + one_line(ov::get_openvino_version().buildNumber) +
         "\noptions " + one_line(options) + "\n";
}

}  // namespace fastserve
