#include "common/open_loop.h"

#include <unistd.h>

#include <algorithm>

namespace fastserve::bench {
namespace {

constexpr std::size_t kMaxNotes = 8;

// A refusal at the door, and a deadline that passed.
bool refused(std::string_view error) {
  return error.starts_with("grpc-status 14:") || error.starts_with("grpc-status 8:") ||
         error.starts_with("HTTP status 503") || error.starts_with("HTTP status 429");
}
bool expired(std::string_view error) { return error.starts_with("grpc-status 4:"); }

}  // namespace

OpenLoop::OpenLoop(const OpenLoopOptions& options, const std::vector<pid_t>& server_pids)
    : options_(options), server_cpu_(server_pids), own_cpu_({getpid()}), phases_(options.phases.size()) {
  std::mt19937_64 random(options.seed);
  std::uniform_real_distribution<double> uniform(0, 1);
  double began_s = 0;
  for (const LoadPhase& phase : options.phases) {
    first_of_.push_back(arrivals_.size());
    std::exponential_distribution<double> gap(phase.per_s);
    for (double at = began_s + gap(random); at < began_s + phase.seconds; at += gap(random)) {
      arrivals_.push_back({static_cast<std::int64_t>(at * 1e9), uniform(random) < options.high_share});
    }
    began_s += phase.seconds;
    ends_.push_back(static_cast<std::int64_t>(began_s * 1e9));
  }
  first_of_.push_back(arrivals_.size());
  ends_of_.resize(arrivals_.size(), End::kNone);
  for (std::size_t tag = 0; tag < arrivals_.size(); ++tag) {
    Phase& phase = phases_[phase_of(tag)];
    ++phase.offered;
    phase.high_offered += arrivals_[tag].high ? 1 : 0;
  }
}

void OpenLoop::start(std::int64_t now_ns) {
  began_ns_ = now_ns;
  for (Arrival& arrival : arrivals_) arrival.due_ns += now_ns;
  for (std::int64_t& end : ends_) end += now_ns;
  phases_.front().cpu_ns = -server_cpu_.now_ns();
  phases_.front().client_cpu_ns = -own_cpu_.now_ns();
}

std::size_t OpenLoop::phase_of(std::uint64_t tag) const {
  return static_cast<std::size_t>(std::ranges::upper_bound(first_of_, tag) - first_of_.begin()) - 1;
}

void OpenLoop::finish(std::uint64_t tag, std::string_view error, std::int64_t now_ns) {
  ++answered_;
  Phase& phase = phases_[phase_of(tag)];
  const std::int64_t took = now_ns - arrivals_[tag].due_ns;
  const bool good = error.empty() && static_cast<double>(took) <= options_.good_ms * 1e6;
  ends_of_[tag] = good ? End::kGood : End::kBad;
  if (error.empty()) {
    ++(good ? phase.good : phase.late);
    phase.high_ok += arrivals_[tag].high ? 1 : 0;
    phase.ok.add(took);
    return;
  }
  if (refused(error)) {
    ++phase.refused;
    phase.refusals.add(took);
  } else {
    ++(expired(error) ? phase.expired : phase.failed);
  }
  if (notes_.size() < kMaxNotes || notes_.contains(std::string(error))) ++notes_[std::string(error)];
}

void OpenLoop::note_cpu(std::int64_t now_ns) {
  while (cpu_phase_ < ends_.size() && now_ns >= ends_[cpu_phase_]) {
    const std::int64_t server = server_cpu_.now_ns();
    const std::int64_t own = own_cpu_.now_ns();
    phases_[cpu_phase_].cpu_ns += server;
    phases_[cpu_phase_].client_cpu_ns += own;
    if (++cpu_phase_ == ends_.size()) return;
    phases_[cpu_phase_].cpu_ns = -server;
    phases_[cpu_phase_].client_cpu_ns = -own;
  }
}

// From the beginning of the phase to the first window in which 99 % were good; the phase's length when there is none.
double OpenLoop::settled_after_s(std::size_t phase) const {
  const std::int64_t begins = phase == 0 ? began_ns_ : ends_[phase - 1];
  const auto window = static_cast<std::int64_t>(options_.settle_ms * 1e6);
  for (std::int64_t from = begins; from + window <= ends_[phase]; from += window / 10) {
    std::size_t all = 0, good = 0;
    for (std::uint64_t tag = first_of_[phase]; tag < first_of_[phase + 1]; ++tag) {
      if (arrivals_[tag].due_ns < from || arrivals_[tag].due_ns >= from + window) continue;
      ++all;
      good += ends_of_[tag] == End::kGood ? 1 : 0;
    }
    if (all > 0 && static_cast<double>(good) >= 0.99 * static_cast<double>(all)) {
      return static_cast<double>(from - begins) / 1e9;
    }
  }
  return static_cast<double>(ends_[phase] - begins) / 1e9;
}

std::string OpenLoop::report() const {
  std::string list = "[";
  for (std::size_t i = 0; i < phases_.size(); ++i) {
    Phase& phase = phases_[i];
    const double seconds = options_.phases[i].seconds;
    JsonObject out, ok, refusals;
    phase.ok.report(ok);
    phase.refusals.report(refusals);
    out.add("per_s", options_.phases[i].per_s).add("seconds", seconds);
    out.add("offered", phase.offered).add("good", phase.good).add("late", phase.late);
    out.add("refused", phase.refused).add("expired", phase.expired).add("failed", phase.failed);
    out.add("high_offered", phase.high_offered).add("high_ok", phase.high_ok);
    out.add("goodput_per_s", static_cast<double>(phase.good) / seconds);
    out.add("server_cpu_s", static_cast<double>(phase.cpu_ns) / 1e9);
    out.add("client_cpu_s", static_cast<double>(phase.client_cpu_ns) / 1e9);
    out.add("settled_after_s", settled_after_s(i));
    std::string text = out.str();
    text.pop_back();  // its closing brace
    text += ", \"ok\": " + ok.str() + ", \"refusals\": " + refusals.str() + "}";
    list += (i == 0 ? "" : ", ") + text;
  }
  std::vector<std::string> notes;
  for (const auto& [what, times] : notes_) notes.push_back(std::to_string(times) + " x " + what);
  JsonObject rest;
  rest.add("notes", notes);
  std::string tail = rest.str();
  return "{\"phases\": " + list + "], " + tail.substr(1);
}

}  // namespace fastserve::bench
