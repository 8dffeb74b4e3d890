#include "simulator/rivals.h"

#include <algorithm>
#include <numeric>

namespace simulator {
namespace {

void take(std::deque<Job*>& from, std::size_t count, std::vector<Job*>& batch) {
  for (std::size_t i = 0; i < count; ++i) {
    batch.push_back(from.front());
    from.pop_front();
  }
}

class NoBatching final : public Scheduler {
 public:
  bool arrive(Job& job, Nanos) override {
    waiting_.push_back(&job);
    return true;
  }
  Nanos pull(int, Nanos, std::vector<Job*>& batch) override {
    if (!waiting_.empty()) take(waiting_, 1, batch);
    return kNever;
  }
  void ended(int, std::int64_t, Nanos, Nanos) override {}

 private:
  std::deque<Job*> waiting_;
};

class Triton final : public Scheduler {
 public:
  Triton(std::int64_t max_rows, Nanos delay, std::vector<std::int64_t> preferred)
      : max_rows_(static_cast<std::size_t>(max_rows)), delay_(delay), preferred_(std::move(preferred)) {
    std::ranges::sort(preferred_);
  }
  bool arrive(Job& job, Nanos) override {
    waiting_.push_back(&job);
    return true;
  }
  Nanos pull(int, Nanos now, std::vector<Job*>& batch) override {
    if (waiting_.empty()) return kNever;
    const std::size_t fits = std::min(waiting_.size(), max_rows_);
    const Nanos until = waiting_.front()->arrived + delay_;
    const bool delayed_enough = now >= until;
    std::size_t size = 0;
    for (const std::int64_t rows : preferred_) {
      if (static_cast<std::size_t>(rows) <= fits) size = static_cast<std::size_t>(rows);
    }
    if (size == 0 || (delayed_enough && delay_ > 0)) size = delayed_enough || fits == max_rows_ ? fits : 0;
    if (size == 0) return until;
    take(waiting_, size, batch);
    return kNever;
  }
  void ended(int, std::int64_t, Nanos, Nanos) override {}

 private:
  const std::size_t max_rows_;
  const Nanos delay_;
  std::vector<std::int64_t> preferred_;
  std::deque<Job*> waiting_;
};

class TfServing final : public Scheduler {
 public:
  TfServing(std::int64_t max_rows, Nanos timeout, std::size_t most)
      : max_rows_(static_cast<std::size_t>(max_rows)), timeout_(timeout), most_(most) {}
  bool arrive(Job& job, Nanos) override {
    if (batches_.empty() || batches_.back().size() >= max_rows_) {
      if (batches_.size() >= most_) return false;
      batches_.emplace_back();
    }
    batches_.back().push_back(&job);
    return true;
  }
  Nanos pull(int, Nanos now, std::vector<Job*>& batch) override {
    if (batches_.empty()) return kNever;
    std::vector<Job*>& first = batches_.front();
    const Nanos until = first.front()->arrived + timeout_;
    if (first.size() < max_rows_ && now < until) return until;
    batch = std::move(first);
    batches_.pop_front();
    return kNever;
  }
  void ended(int, std::int64_t, Nanos, Nanos) override {}

 private:
  const std::size_t max_rows_;
  const Nanos timeout_;
  const std::size_t most_;
  std::deque<std::vector<Job*>> batches_;
};

// In seconds, like the original.
class BentoWorker {
 public:
  // Begins as after its first refit, 5 s in (its first guesses, a = 2 s and b = 1 s, cancel requests until then).
  BentoWorker(const Device& device, double max_latency)
      : max_rows_(static_cast<std::size_t>(device.max_rows)), max_latency_(max_latency) {
    const double one = seconds(device.mean_ns(1));
    a_ = std::max(1e-6, (seconds(device.mean_ns(3)) - one) / 2);
    b_ = std::max(0.0, one - a_);
  }

  void arrive(Job& job) { waiting_.push_back(&job); }

  // True: `batch` is to run. Called at ticks.
  bool look(double now, std::vector<Job*>& batch) {
    constexpr double kTick = 0.001;
    constexpr double kDecay = 0.95;
    if (waiting_.empty()) return false;
    const auto size = static_cast<double>(waiting_.size());
    const double first_wait = now - seconds(waiting_.front()->arrived);
    const double last_wait = now - seconds(waiting_.back()->arrived);
    if (trained_ < kTraining) {
      if (running_) return false;  // start-up: batches of 1, then 1, 2, 3
      const std::size_t wanted = trained_ < kTraining - 2 ? 1 : trained_ - (kTraining - 3);
      ++trained_;
      dispatch(std::min(wanted, waiting_.size()), first_wait, batch);
      return true;
    }
    if (waiting_.size() > 1 && first_wait + a_ * size + b_ >= max_latency_) {
      waiting_.front()->outcome = Outcome::kDropped;
      waiting_.pop_front();
      return false;
    }
    if (running_) return false;
    if (waiting_.size() < max_rows_ && size * (last_wait + kTick + a_) <= kDecay * average_wait_)
      return false;
    dispatch(std::min(waiting_.size(), max_rows_), first_wait, batch);
    return true;
  }

  void ended(std::int64_t rows, double took, double now) {
    running_ = false;
    if (skipped_ < 2) {
      ++skipped_;
      return;
    }
    samples_.push_back({static_cast<double>(rows), took, wait_of_running_});
    if (samples_.size() > 50) samples_.pop_front();
    if (now - fitted_ < 5) return;
    fitted_ = now;
    fit();
  }
  bool empty() const { return waiting_.empty(); }

 private:
  struct Sample {
    double rows, took, wait;
  };
  static constexpr std::size_t kTraining = 2 + 6 + 3;
  static double seconds(Nanos ns) { return static_cast<double>(ns) / 1e9; }

  void dispatch(std::size_t count, double wait, std::vector<Job*>& batch) {
    take(waiting_, count, batch);
    running_ = true;
    wait_of_running_ = wait;
  }
  void fit() {
    double n = 0, x = 0, y = 0, xx = 0, xy = 0, wait = 0;
    for (const Sample& s : samples_) {
      n += 1;
      x += s.rows;
      y += s.took;
      xx += s.rows * s.rows;
      xy += s.rows * s.took;
      wait += s.wait;
    }
    average_wait_ = std::max(0.0, wait / n);
    const double determinant = n * xx - x * x;
    if (determinant <= 1e-12) return;
    a_ = std::max(1e-6, (n * xy - x * y) / determinant);
    b_ = std::max(0.0, (y - a_ * x) / n);
  }

  const std::size_t max_rows_;
  const double max_latency_;
  double a_ = 0, b_ = 0;
  double average_wait_ = 0.001;
  double wait_of_running_ = 0;
  double fitted_ = 0;
  bool running_ = false;
  std::size_t trained_ = 0;
  std::size_t skipped_ = 0;
  std::deque<Sample> samples_;
  std::deque<Job*> waiting_;
};

class BentoMl final : public Scheduler {
 public:
  BentoMl(const Device& device, int workers, Nanos max_latency) {
    for (int i = 0; i < workers; ++i) workers_.emplace_back(device, static_cast<double>(max_latency) / 1e9);
  }
  bool arrive(Job& job, Nanos) override {
    workers_[next_++ % workers_.size()].arrive(job);
    return true;
  }
  Nanos pull(int instance, Nanos now, std::vector<Job*>& batch) override {
    BentoWorker& worker = workers_[static_cast<std::size_t>(instance)];
    const Nanos next_tick = (now / kMillisecond + 1) * kMillisecond;
    if (worker.empty()) return kNever;
    // The simulation asks at every event; the dispatcher looks at its ticks only (timers are late by less than kLate).
    constexpr Nanos kLate = 60 * kMicrosecond;
    if (now % kMillisecond <= kLate) worker.look(static_cast<double>(now) / 1e9, batch);
    return next_tick;
  }
  void ended(int instance, std::int64_t rows, Nanos run_ns, Nanos now) override {
    workers_[static_cast<std::size_t>(instance)].ended(rows, static_cast<double>(run_ns) / 1e9,
                                                       static_cast<double>(now) / 1e9);
  }

 private:
  std::vector<BentoWorker> workers_;
  std::size_t next_ = 0;
};

}  // namespace

std::unique_ptr<Scheduler> no_batching() { return std::make_unique<NoBatching>(); }
std::unique_ptr<Scheduler> triton(const Device& device, Nanos max_queue_delay_ns,
                                  std::vector<std::int64_t> preferred) {
  return std::make_unique<Triton>(device.max_rows, max_queue_delay_ns, std::move(preferred));
}
std::unique_ptr<Scheduler> tf_serving(const Device& device, Nanos batch_timeout_ns,
                                      std::size_t max_enqueued_batches) {
  return std::make_unique<TfServing>(device.max_rows, batch_timeout_ns, max_enqueued_batches);
}
std::unique_ptr<Scheduler> bentoml(const Device& device, int workers, Nanos max_latency_ns) {
  return std::make_unique<BentoMl>(device, workers, max_latency_ns);
}

}  // namespace simulator
