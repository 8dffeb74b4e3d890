#include "batch/choice.h"

#include <algorithm>
#include <array>

namespace fastserve {
namespace {

// A size that could run now: the first `requests` of the queue.
struct Candidate {
  std::size_t requests = 0;
  std::int64_t rows = 0;
  double rows_per_ns = 0;
};

struct Candidates {
  static constexpr std::size_t kMost = 24;
  std::array<Candidate, kMost> at;
  std::size_t count = 0;
  double best = 0;

  void add(const BatchLimits& limits, const CostModel& cost, std::size_t requests, std::int64_t rows) {
    if (count == kMost) --count;  // the largest ones matter least, but the last is "all of it"
    at[count] = {requests, rows, rows_per_ns(limits, cost, rows)};
    best = std::max(best, at[count].rows_per_ns);
    ++count;
  }
};

// Every size up to `most` that is worth a look. Where the device pads: the most requests that run as each prepared size;
// else the prepared sizes themselves (one that was never run costs the device its preparation) and the first request
// alone, which may be anything; when requests do not add up to prepared sizes, all.
void find_candidates(const BatchLimits& limits, const QueueView& queue, const CostModel& cost,
                     const Decision& most, Candidates& out) {
  std::int64_t rows = 0;
  auto size = limits.prepared_rows.begin();  // the first prepared one of at least `rows`
  const auto end = limits.prepared_rows.end();
  for (std::size_t i = 0; i < most.requests; ++i) {
    rows += queue.rows[i];
    while (size != end && *size < rows) ++size;
    bool worth = i == 0;
    if (limits.pads) {
      worth = i + 1 == most.requests || size == end || rows + queue.rows[i + 1] > *size;
    } else if (size != end && *size == rows) {
      worth = true;
    }
    if (worth) out.add(limits, cost, i + 1, rows);
  }
  if (limits.pads || out.count > 1) return;
  if (std::ranges::binary_search(limits.prepared_rows, out.at[0].rows)) return;
  rows = queue.rows[0];
  for (std::size_t i = 1; i < most.requests; ++i) out.add(limits, cost, i + 1, rows += queue.rows[i]);
}
// The part of what waits that is the cheapest, among sizes that could run now.
class Choice {
 public:
  Choice(const BatchLimits& limits, const QueueView& queue, const CostModel& cost, const Decision& most,
         Nanos now)
      : limits_(limits), queue_(queue), cost_(cost), now_(now) {
    find_candidates(limits, queue, cost, most, candidates_);
  }

  bool known() const { return candidates_.best > 0; }
  const Candidate& chosen() const { return candidates_.at[at_]; }
  Reason reason() const { return reason_; }

  // The smallest whose rows per ns are within 3 % of the best.
  void cheapest() {
    while (at_ + 1 < candidates_.count && chosen().rows_per_ns < kGoodEnough * candidates_.best) ++at_;
  }

  // One less only when it was not far behind: clients that come back together are parted by it, and stay so for a while.
  void explore(bool more) {
    constexpr double kNotFarBehind = 0.75;
    if (more ? at_ + 1 == candidates_.count : at_ == 0) return;
    if (!more && candidates_.at[at_ - 1].rows_per_ns < kNotFarBehind * chosen().rows_per_ns) return;
    at_ = more ? at_ + 1 : at_ - 1;
    reason_ = Reason::kExplore;
  }

  // Nothing else waits: everything at once, if that is as cheap and what would be left over would end later. No test of one
  // against the other where more waits: then the device is busy anyway.
  void all_if_sooner_done() {
    constexpr double kSooner = 1.05;
    const Candidate& all = candidates_.at[candidates_.count - 1];
    const std::int64_t batches = all.rows / chosen().rows;
    const std::int64_t rest = all.rows % chosen().rows;
    const double apart = static_cast<double>(batches) * run(chosen().rows) + (rest > 0 ? run(rest) : 0);
    if (apart > kSooner * run(all.rows)) at_ = candidates_.count - 1;
  }

  // Another instance is, or soon will be, free: a part for this one, when both parts end well before the whole would.
  void share() {
    constexpr double kSooner = 0.9;
    if (queue_.instances < 2 || queue_.starts_at > now_) return;
    if (queue_.idle_instances < 2 && queue_.next_free_at == 0) return;
    const auto free_in =
        static_cast<double>(queue_.idle_instances > 1 ? 0 : std::max<Nanos>(queue_.next_free_at - now_, 0));
    const std::int64_t all = chosen().rows;
    double soonest = kSooner * run(all);
    for (std::size_t smaller = at_; smaller-- > 0;) {
      const Candidate& c = candidates_.at[smaller];
      if (c.rows_per_ns * queue_.instances < kShareHeadroom * queue_.arrivals_per_ns) break;
      const double end = std::max(run(c.rows), free_in + run(all - c.rows));
      if (end >= soonest) continue;
      soonest = end;
      at_ = smaller;
    }
  }

  // A smaller batch for the sake of those in front, but only one that keeps up with what arrives: else everybody behind
  // them pays, and the next front is later still.
  void keep_promises() {
    const Nanos by = due(limits_, queue_);
    if (by == kNever || queue_.arrivals_per_ns <= 0 || in_time(chosen(), by)) return;
    for (std::size_t smaller = at_; smaller-- > 0;) {
      const Candidate& c = candidates_.at[smaller];
      if (c.rows_per_ns * queue_.instances < kHeadroom * queue_.arrivals_per_ns) return;
      if (!in_time(c, by)) continue;
      at_ = smaller;
      reason_ = Reason::kDeadline;
      return;
    }
  }

 private:
  static constexpr double kHeadroom = 1.1;
  static constexpr double kShareHeadroom = 1.5;

  double run(std::int64_t rows) const {
    return static_cast<double>(cost_.expected_ns(run_rows(limits_, rows)));
  }
  bool in_time(const Candidate& c, Nanos by) const {
    return std::max(now_, queue_.starts_at) + cost_.high_ns(run_rows(limits_, c.rows)) <= by;
  }

  const BatchLimits& limits_;
  const QueueView& queue_;
  const CostModel& cost_;
  Nanos now_;
  Candidates candidates_;
  std::size_t at_ = 0;
  Reason reason_ = Reason::kCheapest;
};

}  // namespace

// The rows that the device computes for a batch of `rows`.
std::int64_t run_rows(const BatchLimits& limits, std::int64_t rows) {
  if (!limits.pads) return rows;
  const auto bucket = std::ranges::lower_bound(limits.prepared_rows, rows);
  return bucket == limits.prepared_rows.end() ? rows : *bucket;
}

double rows_per_ns(const BatchLimits& limits, const CostModel& cost, std::int64_t rows) {
  const Nanos ns = cost.expected_ns(run_rows(limits, rows));
  return ns > 0 ? static_cast<double>(rows) / static_cast<double>(ns) : 0;
}

// By when the requests in front should have their answer.
Nanos due(const BatchLimits& limits, const QueueView& queue) {
  if (limits.target_p99_ns == 0) return queue.earliest_deadline;
  return std::min(queue.earliest_deadline, queue.oldest_enqueued + limits.target_p99_ns);
}

// Of all that fits, the part to run now. `whole`: nothing waits beyond it.
Decision economical(const BatchLimits& limits, const QueueView& queue, const CostModel& cost,
                    const Decision& most, bool whole, Nanos now) {
  Decision all = most;
  all.reason = Reason::kNoGain;
  if (limits.prepared_rows.empty() || most.requests <= 1) return all;
  Choice choice(limits, queue, cost, most, now);
  if (!choice.known()) return all;
  choice.cheapest();
  if (queue.explore != 0) {
    choice.explore(queue.explore > 0);
  } else {
    if (whole && choice.chosen().requests < most.requests) choice.all_if_sooner_done();
    if (whole && choice.chosen().requests == most.requests) choice.share();
    choice.keep_promises();
  }
  const Candidate& chosen = choice.chosen();
  if (chosen.requests == most.requests && choice.reason() == Reason::kCheapest) return all;
  return {chosen.requests, chosen.rows, kNever, choice.reason()};
}

}  // namespace fastserve
