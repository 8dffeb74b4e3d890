#include "simulator/simulation.h"

#include <algorithm>
#include <deque>
#include <queue>
#include <random>

namespace simulator {
namespace {

// A timer of a real thread is late by about so much.
constexpr Nanos kTimerLate = 50 * kMicrosecond;

struct Running {
  std::vector<Job*> jobs;
  Nanos start = 0;
  Nanos end = 0;
  std::int64_t rows = 0;
};

enum class Kind : std::uint8_t { kArrival, kEnd, kLook };

struct Event {
  Nanos at = 0;
  std::uint64_t order = 0;  // of equal times: first scheduled first
  Kind kind = Kind::kLook;
  int which = 0;  // client or instance
  bool operator>(const Event& other) const { return at != other.at ? at > other.at : order > other.order; }
};

class Simulation {
 public:
  Simulation(const Device& device, const Machine& machine, const Load& load, Scheduler& scheduler)
      : device_(device),
        machine_(machine),
        load_(load),
        scheduler_(scheduler),
        random_(load.seed * 7919 + 1),
        flights_(static_cast<std::size_t>(machine.instances)),
        free_since_(flights_.size(), -kSecond) {
    jobs_.reserve(load.clients > 0 ? load.count : load.arrivals.size());
  }

  Result run() {
    if (load_.clients > 0) {
      for (int client = 0; client < load_.clients; ++client) push(turnaround(), Kind::kArrival, client);
    } else if (!load_.arrivals.empty()) {
      push(load_.arrivals[0], Kind::kArrival, -1);
    }
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      now_ = event.at;
      if (event.kind == Kind::kArrival) arrive(event.which);
      if (event.kind == Kind::kEnd) end(event.which);
      if (event.kind == Kind::kLook && event.at == next_look_) next_look_ = kNever;
      pull_all();
    }
    return measure();
  }

 private:
  void push(Nanos at, Kind kind, int which) { events_.push({at, order_++, kind, which}); }
  Nanos turnaround() {
    // Half of it always, the rest varies: a network and a client's own work.
    const double mean = static_cast<double>(load_.turnaround_ns);
    return now_ + static_cast<Nanos>(mean / 2 + std::exponential_distribution<double>(2 / mean)(random_));
  }

  void arrive(int client) {
    if (client >= 0 && jobs_.size() >= load_.count) return;
    jobs_.push_back({});  // never reallocates
    Job& job = jobs_.back();
    job.arrived = now_;
    job.client = client;
    if (load_.deadline_ns > 0) job.deadline = now_ + load_.deadline_ns;
    if (load_.high_priority_share > 0) {
      job.priority = std::bernoulli_distribution(load_.high_priority_share)(random_) ? 0 : 1;
    }
    if (!scheduler_.arrive(job, now_)) {
      job.outcome = Outcome::kRefused;
      job.ended = now_;
      // A refused client in a closed loop does not hammer.
      if (client >= 0) push(now_ + kMillisecond, Kind::kArrival, client);
    }
    if (load_.clients == 0 && jobs_.size() < load_.arrivals.size()) {
      push(load_.arrivals[jobs_.size()], Kind::kArrival, -1);
    }
  }

  void pull_all() {
    for (bool again = true; again;) {
      again = false;
      for (std::size_t i = 0; i < flights_.size(); ++i) {
        if (flights_[i].size() >= static_cast<std::size_t>(machine_.depth)) continue;
        Running batch;
        const Nanos look = scheduler_.pull(static_cast<int>(i), now_, batch.jobs);
        if (!batch.jobs.empty()) {
          start(static_cast<int>(i), std::move(batch));
          again = true;
        } else if (look != kNever) {
          const Nanos at = std::max(look, now_) + kTimerLate;
          if (at < next_look_ || next_look_ < now_) push(next_look_ = at, Kind::kLook, static_cast<int>(i));
        }
      }
    }
  }

  void start(int instance, Running batch) {
    const auto at = static_cast<std::size_t>(instance);
    for (Job* job : batch.jobs) {
      job->outcome = Outcome::kRunning;
      batch.rows += job->rows;
    }
    // A device that just became free was waited for: the batch had yet to be gathered and handed over.
    batch.start =
        flights_[at].empty() ? std::max(now_, free_since_[at] + machine_.gap_ns) : flights_[at].back().end;
    const Nanos run = device_.run_ns(batch.rows, batch.start, random_);
    batch.end = batch.start + run;
    busy_ns_ += run;
    ++batches_;
    rows_ += batch.rows;
    push(batch.end, Kind::kEnd, instance);
    flights_[at].push_back(std::move(batch));
  }

  void end(int instance) {
    const auto at = static_cast<std::size_t>(instance);
    const Running batch = std::move(flights_[at].front());
    flights_[at].pop_front();
    free_since_[at] = now_;
    for (Job* job : batch.jobs) {
      job->outcome = Outcome::kServed;
      job->ended = now_;
      if (job->client >= 0) push(turnaround(), Kind::kArrival, job->client);
    }
    scheduler_.ended(instance, batch.rows, batch.end - batch.start, now_);
  }

  Result measure() const {
    Result out;
    std::vector<double> ms;
    std::size_t refused = 0, dropped = 0, late = 0, high = 0, high_refused = 0;
    const std::size_t first = jobs_.size() / 10;
    for (std::size_t i = first; i < jobs_.size(); ++i) {
      const Job& job = jobs_[i];
      high += job.priority == 0 ? 1 : 0;
      if (job.outcome == Outcome::kRefused) {
        ++refused;
        high_refused += job.priority == 0 ? 1 : 0;
      } else if (job.outcome == Outcome::kServed) {
        ms.push_back(static_cast<double>(job.ended - job.arrived) / 1e6);
        late += job.ended > job.deadline ? 1 : 0;
      } else {
        ++dropped;
      }
    }
    const auto count = static_cast<double>(jobs_.size() - first);
    if (ms.empty() || count == 0) return out;
    const double span_s = static_cast<double>(jobs_.back().arrived - jobs_[first].arrived) / 1e9;
    out.offered_per_s = count / span_s;
    // While requests come: neither the run-in nor the backlog at the end is throughput.
    const auto in_time = std::ranges::count_if(jobs_, [&](const Job& job) {
      return job.outcome == Outcome::kServed && job.ended >= jobs_[first].arrived &&
             job.ended <= jobs_.back().arrived;
    });
    out.served_per_s = static_cast<double>(in_time) / span_s;
    for (const double value : ms) out.mean_ms += value / static_cast<double>(ms.size());
    const auto percentile = [&ms](double share) {
      const auto at = static_cast<std::ptrdiff_t>(share * static_cast<double>(ms.size() - 1));
      std::nth_element(ms.begin(), ms.begin() + at, ms.end());
      return ms[static_cast<std::size_t>(at)];
    };
    out.p50_ms = percentile(0.5);
    out.p99_ms = percentile(0.99);
    out.mean_batch = static_cast<double>(rows_) / static_cast<double>(batches_);
    out.busy = static_cast<double>(busy_ns_) / static_cast<double>(now_) / machine_.instances;
    out.refused = static_cast<double>(refused) / count;
    out.dropped = static_cast<double>(dropped) / count;
    out.late = static_cast<double>(late) / static_cast<double>(ms.size());
    if (high > 0) out.high_admitted = 1 - static_cast<double>(high_refused) / static_cast<double>(high);
    return out;
  }

  const Device& device_;
  const Machine& machine_;
  const Load& load_;
  Scheduler& scheduler_;
  std::mt19937_64 random_;
  std::vector<Job> jobs_;
  std::vector<std::deque<Running>> flights_;
  std::vector<Nanos> free_since_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::uint64_t order_ = 0;
  Nanos now_ = 0;
  Nanos next_look_ = kNever;
  Nanos busy_ns_ = 0;
  std::int64_t batches_ = 0;
  std::int64_t rows_ = 0;
};

}  // namespace

Result simulate(const Device& device, const Machine& machine, const Load& load, Scheduler& scheduler) {
  return Simulation(device, machine, load, scheduler).run();
}

}  // namespace simulator
