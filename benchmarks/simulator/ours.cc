#include "simulator/ours.h"

#include <algorithm>

namespace simulator {

namespace fs = fastserve;

Ours::Ours(const Device& device, const Machine& machine, Options options)
    : device_(device),
      depth_(machine.depth),
      options_(options),
      instances_(static_cast<std::size_t>(machine.instances)) {
  limits_.max_rows = device.max_rows;
  limits_.prepared_rows = device.prepared_rows;
  limits_.pads = device.pads;
  limits_.target_p99_ns = options.target_p99_ns;
  limits_.max_queue_requests = options.max_queue_requests;
  warm_up();
}

// As the server does: every prepared size once on each instance, the smallest and largest where there are none.
void Ours::warm_up() {
  std::vector<std::int64_t> sizes = device_.prepared_rows;
  if (sizes.empty()) sizes = {1, device_.max_rows};
  for (Instance& instance : instances_) {
    for (const std::int64_t rows : sizes) instance.cost.record(rows, device_.warm_up_ns(rows));
  }
  drain_.store(fs::drain_rate(limits_, instances_[0].cost, static_cast<int>(instances_.size())));
}

// When it could start another batch; <= now: at once. While something runs, always later than now.
Nanos Ours::free_at(const Instance& instance, Nanos now) const {
  if (instance.expected.empty()) return 0;
  Nanos at = instance.started;
  for (const Nanos ns : instance.expected) at += ns;
  return std::max(at, now + instance.expected.front() / 16 + 1);
}

bool Ours::arrive(Job& job, Nanos now) {
  fs::AdmissionView view;
  for (int level = 0; level < kLevels; ++level) {
    const auto& queue = waiting_[static_cast<std::size_t>(level)];
    if (level <= job.priority) view.requests_before += static_cast<std::int64_t>(queue.size());
  }
  if (view.requests_before >= options_.max_queue_requests) return false;
  view.rows_before = view.requests_before;  // the simulation's requests have one row
  view.rows = job.rows;
  view.free_at = kNever;
  for (const Instance& instance : instances_) view.free_at = std::min(view.free_at, free_at(instance, now));
  view.drain = drain_.load();
  view.overtaken = shares_.above(static_cast<std::size_t>(job.priority));
  const bool admitted = fs::admission(view, now, job.deadline, {options_.target_p99_ns}).admit;
  if (!admitted) return false;
  waiting_[static_cast<std::size_t>(job.priority)].push_back(&job);
  rate_.arrived(job.rows, now);
  return true;
}

bool Ours::drop_expired(Nanos now) {
  for (auto& queue : waiting_) {
    std::erase_if(queue, [now](Job* job) {
      if (job->deadline > now) return false;
      job->outcome = Outcome::kDropped;
      return true;
    });
  }
  return true;
}

Nanos Ours::pull(int index, Nanos now, std::vector<Job*>& batch) {
  Instance& instance = instances_[static_cast<std::size_t>(index)];
  drop_expired(now);
  fs::QueueView view;
  view_rows_.clear();
  view.oldest_enqueued = kNever;
  std::int64_t rows = 0;
  for (const auto& queue : waiting_) {
    for (const Job* job : queue) {
      if (rows >= limits_.max_rows) break;
      view_rows_.push_back(job->rows);
      rows += job->rows;
      view.earliest_deadline = std::min(view.earliest_deadline, job->deadline);
    }
    if (!queue.empty()) view.oldest_enqueued = std::min(view.oldest_enqueued, queue.front()->arrived);
  }
  view.rows = view_rows_;
  if (++looks_ % 64 == 0) view.explore = looks_ % 128 == 0 ? -1 : 1;
  view.idle_instances = 1;
  for (const Instance& other : instances_) {
    if (&other != &instance && other.expected.empty()) ++view.idle_instances;
  }
  view.instances = static_cast<int>(instances_.size());
  if (view.idle_instances == 1 && view.instances > 1) {
    view.next_free_at = kNever;
    for (const Instance& other : instances_) {
      if (&other != &instance) view.next_free_at = std::min(view.next_free_at, free_at(other, now));
    }
  }
  if (options_.forecasts) rate_.describe(view, now);
  if (options_.binds_late) view.starts_at = free_at(instance, now);
  const fs::Decision decision = fs::decide(limits_, view, instance.cost, now);
  ++reasons[static_cast<std::size_t>(decision.reason)];
  for (std::size_t i = 0; i < decision.requests; ++i) {
    auto& queue = waiting_[0].empty() ? waiting_[1] : waiting_[0];
    batch.push_back(queue.front());
    shares_.served(static_cast<std::size_t>(queue.front()->priority), queue.front()->rows);
    queue.pop_front();
  }
  if (batch.empty()) return decision.wait_until;
  if (instance.expected.empty()) instance.started = now;
  instance.expected.push_back(instance.cost.expected_ns(device_.run_rows(decision.rows)));
  return kNever;
}

void Ours::ended(int index, std::int64_t rows, Nanos run_ns, Nanos now) {
  Instance& instance = instances_[static_cast<std::size_t>(index)];
  instance.cost.record(device_.run_rows(rows), run_ns);
  instance.expected.pop_front();
  instance.started = now;
  if (options_.hears_answers) rate_.answered(rows, now);
  drain_.store(fs::drain_rate(limits_, instance.cost, static_cast<int>(instances_.size())));
}

}  // namespace simulator
