#include "sched/statistics.h"

#include <algorithm>

namespace fastserve {
namespace {

template <Writers kWriters>
void add_ns(Counter& to, Nanos ns) {
  count<kWriters>(to, static_cast<std::uint64_t>(ns));
}

}  // namespace

StatisticsShard::StatisticsShard(std::int64_t sizes_in)
    : sizes(sizes_in), by_rows(std::make_unique<SizeCounter[]>(static_cast<std::size_t>(sizes_in))) {}

Statistics::Statistics(std::int64_t max_rows) : sizes_(std::clamp<std::int64_t>(max_rows, 1, kMaxSizes)) {
  add_shard();
}

StatisticsShard& Statistics::add_shard() {
  return *shards_.emplace_back(std::make_unique<StatisticsShard>(sizes_));
}

void BatchCount::add_request(Nanos queue_ns, Nanos total_ns) {
  if (claimed_) {
    shard_.queue.count<Writers::kOne>(queue_ns);
    shard_.total.count<Writers::kOne>(total_ns);
  } else {
    shard_.queue.count<Writers::kAny>(queue_ns);
    shard_.total.count<Writers::kAny>(total_ns);
  }
}

void BatchCount::add_batch(const BatchTimes& batch) {
  if (batch.served == 0) return;
  if (claimed_) {
    add<Writers::kOne>(batch);
  } else {
    add<Writers::kAny>(batch);
  }
}

template <Writers kWriters>
void BatchCount::add(const BatchTimes& batch) {
  shard_.gather.count<kWriters>(batch.gather_ns, batch.served);
  shard_.execute.count<kWriters>(batch.execute_ns, batch.served);
  add_ns<kWriters>(shard_.scatter_ns, batch.scatter_ns * static_cast<Nanos>(batch.served));
  count<kWriters>(shard_.rows_served, static_cast<std::uint64_t>(batch.served_rows));
  shard_.last_run.store(batch.now, std::memory_order_relaxed);
  SizeCounter& size = shard_.of_rows(batch.rows);
  count<kWriters>(size.count);
  add_ns<kWriters>(size.gather_ns, batch.gather_ns);
  add_ns<kWriters>(size.execute_ns, batch.execute_ns);
  add_ns<kWriters>(size.scatter_ns, batch.scatter_ns);
}

}  // namespace fastserve
