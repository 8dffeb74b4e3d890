#include "sched/statistics.h"

#include <algorithm>

namespace fastserve {
namespace {

constexpr std::array<Nanos, kStageBoundsSeconds.size()> bounds_ns() {
  std::array<Nanos, kStageBoundsSeconds.size()> out{};
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] =
        static_cast<Nanos>(kStageBoundsSeconds[i] * 1e9 + 0.25);  // .25: 5e-6 * 1e9 may fall short of 5000
  return out;
}
constexpr auto kBoundsNs = bounds_ns();

void add(std::atomic<std::uint64_t>& to, Nanos ns) {
  to.fetch_add(static_cast<std::uint64_t>(ns), std::memory_order_relaxed);
}

}  // namespace

std::size_t StageCounter::bucket_of(Nanos ns) {
  return static_cast<std::size_t>(std::ranges::lower_bound(kBoundsNs, ns) - kBoundsNs.begin());
}

std::uint64_t StageCounter::count() const {
  std::uint64_t total = 0;
  for (const auto& bucket : counts_) total += bucket.load(std::memory_order_relaxed);
  return total;
}

Statistics::Statistics(std::int64_t max_rows)
    : sizes_(std::clamp<std::int64_t>(max_rows, 1, kMaxSizes)),
      by_rows_(std::make_unique<SizeCounter[]>(static_cast<std::size_t>(sizes_))) {}

void Statistics::add_request(Nanos queue_ns, Nanos total_ns) {
  queue.count(queue_ns);
  queue.add_ns(queue_ns);
  total.count(total_ns);
  total.add_ns(total_ns);
}

void Statistics::add_batch(const BatchTimes& batch) {
  const auto served = static_cast<Nanos>(batch.served);
  gather.count(batch.gather_ns, batch.served);
  gather.add_ns(batch.gather_ns * served);
  execute.count(batch.execute_ns, batch.served);
  execute.add_ns(batch.execute_ns * served);
  add(scatter_ns, batch.scatter_ns * served);
  rows_served.fetch_add(static_cast<std::uint64_t>(batch.served_rows), std::memory_order_relaxed);
  last_run.store(batch.now, std::memory_order_relaxed);
  SizeCounter& size = by_rows_[index(batch.rows)];
  size.count.fetch_add(1, std::memory_order_relaxed);
  add(size.gather_ns, batch.gather_ns);
  add(size.execute_ns, batch.execute_ns);
  add(size.scatter_ns, batch.scatter_ns);
}

}  // namespace fastserve
