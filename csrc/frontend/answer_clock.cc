#include "frontend/answer_clock.h"

#include "batch/served_version.h"

namespace fastserve {
namespace {

constexpr std::size_t kMaxKnown = 64;  // at the end of a pass; versions come and go

// Answers of one version that fell into one bucket go into it in one piece: adding is a locked instruction.
class Run {
 public:
  void add(DurationHistogram* histogram, Nanos took) {
    const std::size_t bucket = DurationHistogram::bucket_of(took);
    if (histogram != histogram_ || bucket != bucket_) end();
    histogram_ = histogram;
    bucket_ = bucket;
    ++count_;
    sum_ns_ += static_cast<std::uint64_t>(took > 0 ? took : 0);
  }
  void end() {
    if (count_ == 0) return;
    histogram_->add_to_bucket<Writers::kAny>(bucket_, std::exchange(count_, 0));
    histogram_->add_to_sum<Writers::kAny>(std::exchange(sum_ns_, 0));
  }

 private:
  DurationHistogram* histogram_ = nullptr;
  std::size_t bucket_ = 0;
  std::uint64_t count_ = 0;
  std::uint64_t sum_ns_ = 0;
};

}  // namespace

DurationHistogram* AnswerClock::histogram_of(const Request& request) {
  const std::shared_ptr<DurationHistogram>& wanted = request.version->encode_times;
  for (const auto& known : known_) {
    if (known == wanted) return known.get();
  }
  return known_.emplace_back(wanted).get();
}

void AnswerClock::trace(const Request& request, TraceSource source, Nanos now) {
  if (auto trace = tracer_.sample(request, source, now)) traces_.emplace_back(std::move(*trace), source);
}

void AnswerClock::count_all(Nanos now) {
  Run run;
  for (const Answer& answer : answers_) run.add(answer.histogram, now - answer.delivered);
  run.end();
  answers_.clear();
  for (auto& [trace, source] : traces_) tracer_.keep(std::move(trace), source, now);
  traces_.clear();
  if (known_.size() > kMaxKnown) known_.clear();
}

}  // namespace fastserve
