#include "batch/company.h"

#include <algorithm>
#include <cmath>

#include "batch/choice.h"

namespace fastserve {
namespace {

// Device time that waiting for company saves, over two batches: now n rows and then the R that arrive meanwhile, or after a
// wait of T a batch of m = n + k and then the R - k that are left (less than one row: as likely as that is, one run):
//   L(n) + L(R)  -  (T + L(m) + L(R - k))
// Where arrivals are independent the next batch absorbs the late ones anyway, and this is negative for every k. It is
// positive where k arrivals are closer than the long-run rate says: in a burst, or when clients come back that were just
// answered.
class Company {
 public:
  Company(const BatchLimits& limits, const QueueView& queue, const CostModel& cost, std::int64_t rows,
          double soon_per_ns)
      : limits_(limits), cost_(cost), rows_(rows), returning_(queue.returning_rows), first_(1 / soon_per_ns) {
    then_ = queue.then_per_ns > 0 ? 1 / queue.then_per_ns : first_;
    alone_ = run(rows);
    during_ = queue.late_per_ns * alone_ + static_cast<double>(returning_);
  }

  bool pays() const {
    if (first_ >= alone_) return false;
    if (pays(rows_ + 1)) return true;
    if (returning_ > 1 && pays(rows_ + returning_)) return true;
    const double reach = static_cast<double>(rows_) + std::max(2 * during_, 1.0) + alone_ / then_;
    const auto most =
        reach < static_cast<double>(limits_.max_rows) ? static_cast<std::int64_t>(reach) : limits_.max_rows;
    if (limits_.prepared_rows.empty()) {
      for (std::int64_t m = rows_ * 2; m <= most; m *= 2) {
        if (pays(m)) return true;
      }
      return false;
    }
    for (auto m = std::ranges::upper_bound(limits_.prepared_rows, rows_ + 1);
         m != limits_.prepared_rows.end() && *m <= most; ++m) {
      if (pays(*m)) return true;
    }
    return false;
  }

 private:
  bool pays(std::int64_t m) const {
    if (m > limits_.max_rows) m = limits_.max_rows;
    // Beyond the wait itself: forecasts err, and so do costs.
    constexpr double kWaitWeight = 2;
    constexpr double kMargin = 0.03;
    const auto k = static_cast<double>(m - rows_);
    const double wait = first_ + (k - 1) * then_;
    const double meanwhile = std::max(during_, k);
    const double saved = alone_ + learned(meanwhile) - run(m) - learned(meanwhile - k);
    return saved > kWaitWeight * wait + kMargin * alone_;
  }
  double run(std::int64_t rows) const {
    return static_cast<double>(cost_.expected_ns(run_rows(limits_, rows)));
  }
  double learned(double rows) const {
    if (rows <= 0) return 0;
    if (rows < 1) return rows * static_cast<double>(cost_.expected_ns(1));
    return static_cast<double>(
        cost_.expected_ns(std::min<std::int64_t>(std::llround(rows), limits_.max_rows)));
  }

  const BatchLimits& limits_;
  const CostModel& cost_;
  std::int64_t rows_;
  std::int64_t returning_;
  double first_;       // expected time to the first arrival
  double then_ = 0;    // and from each to the next
  double alone_ = 0;   // L(n)
  double during_ = 0;  // R
};

// Several instances, all of them needed: a batch that starts right after another instance's leaves whoever comes next to
// wait for almost a whole run. Starts that are a run / instances apart halve that for two. Only where a batch takes about as
// long with those that come meanwhile (else the idle time is lost), and once the starts are apart nobody waits for it.
Nanos evenly(const BatchLimits& limits, const QueueView& queue, const CostModel& cost, const Decision& all,
             Nanos now) {
  constexpr double kArrivalsBetween =
      2;  // expected from one start to the next; with fewer the device is idle at times
  constexpr double kFlat = 1.25;
  if (queue.instances < 2 || queue.next_free_at <= now) return now;
  const auto run = static_cast<double>(cost.expected_ns(run_rows(limits, all.rows)));
  const double apart = run / queue.instances;
  const auto next_free = static_cast<double>(queue.next_free_at - now);
  if (next_free <= apart || next_free > run * kFlat || queue.arrivals_per_ns * apart < kArrivalsBetween)
    return now;
  const auto with_them =
      std::min<std::int64_t>(limits.max_rows, all.rows + std::llround(queue.arrivals_per_ns * next_free));
  if (static_cast<double>(cost.expected_ns(with_them)) > kFlat * run) return now;
  return now + static_cast<Nanos>(next_free - apart);
}

}  // namespace

// Until when to wait instead of running `chosen`; `now`: not at all.
Nanos wait_for_company(const BatchLimits& limits, const QueueView& queue, const CostModel& cost,
                       const Decision& all, const Decision& chosen, Nanos now) {
  const bool behind = queue.starts_at > now;
  if (chosen.reason == Reason::kExplore) return now;
  if (!behind && queue.idle_instances > 1) return now;
  const Nanos run = cost.expected_ns(run_rows(limits, all.rows));
  if (run == 0 || run < limits.shortest_worth_waiting_ns) return now;
  // Behind another batch waiting costs nothing: bind late, but in time to be gathered before that one ends. Not when a
  // larger batch would not be cheaper for each row: then there is nothing to wait for.
  if (behind) {
    if (queue.idle_instances > 1) return queue.starts_at;  // that one starts it sooner
    if (chosen.rows >= best_rows(limits, cost)) return now;
    const Nanos lead = 100 * kMicrosecond + run / 32;
    if (queue.starts_at - now > lead) return queue.starts_at - lead;
    if (queue.return_per_ns > 0 && Company(limits, queue, cost, all.rows, queue.return_per_ns).pays()) {
      return queue.starts_at + lead;  // its end is heard before
    }
    return now;
  }
  if (const Nanos even = evenly(limits, queue, cost, all, now); even > now) return even;
  if (queue.soon_per_ns <= 0 || queue.soon_until <= now) return now;
  const Company company(limits, queue, cost, all.rows, queue.soon_per_ns);
  return company.pays() ? queue.soon_until : now;
}

}  // namespace fastserve
