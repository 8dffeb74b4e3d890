// Counters -> the numbers that metrics and the statistics extension show.
#include <algorithm>
#include <bit>
#include <chrono>

#include "engine/engine_impl.h"

namespace fastserve {
namespace {

using Shards = std::vector<std::unique_ptr<StatisticsShard>>;

// One stage over several shards, each bucket read once: count and sums of what is shown go together.
class StageSum {
 public:
  StageSum(const Shards& shards, DurationHistogram StatisticsShard::*stage) {
    for (const auto& shard : shards) add(*shard.*stage);
  }
  explicit StageSum(const DurationHistogram& only) { add(only); }

  StageTotal total() const {
    StageTotal out{0, sum_ns_};
    for (const std::uint64_t bucket : buckets_) out.count += bucket;
    return out;
  }
  Histogram seconds() const {
    Histogram out;
    for (std::size_t i = 0; i < DurationHistogram::kBounds; ++i) {
      out.upper_bounds.push_back(static_cast<double>(DurationHistogram::bound_ns(i)) / 1e9);
    }
    out.counts.assign(buckets_.begin(), buckets_.end());
    out.sum = static_cast<double>(sum_ns_) / 1e9;
    return out;
  }

 private:
  void add(const DurationHistogram& from) {
    for (std::size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += from.in_bucket(i);
    sum_ns_ += from.sum_ns();
  }
  std::array<std::uint64_t, DurationHistogram::kBuckets> buckets_{};
  std::uint64_t sum_ns_ = 0;
};

StageTotal operator+(const StageTotal& a, const StageTotal& b) { return {a.count + b.count, a.ns + b.ns}; }

std::uint64_t sum(const Shards& shards, Counter StatisticsShard::*counter) {
  std::uint64_t out = 0;
  for (const auto& shard : shards) out += read(*shard.*counter);
  return out;
}

// A monotonic moment as wall clock, by what both clocks say now.
std::int64_t wall_clock_ms(Nanos moment) {
  if (moment == 0) return 0;
  using std::chrono::duration_cast;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const Nanos ago = monotonic_now() - moment;
  return duration_cast<std::chrono::milliseconds>(now - std::chrono::nanoseconds(ago)).count();
}

void read_outcomes(const Statistics& from, VersionStatistics& out) {
  const auto total = [&](Outcome outcome) -> StageTotal {
    const OutcomeCounter& counter = from.of(outcome);
    return {read(counter.count), read(counter.ns)};
  };
  const StageTotal full = total(Outcome::kQueueFull);
  const StageTotal too_late = total(Outcome::kTooLate);
  const StageTotal timeout = total(Outcome::kQueueTimeout);
  const StageTotal deadline = total(Outcome::kDeadline);
  const StageTotal unloading = total(Outcome::kUnloading);
  out.cancel = total(Outcome::kCancelled);
  out.rejected = full + too_late + timeout;
  out.other = deadline + unloading + total(Outcome::kClientMemory);
  out.fail = total(Outcome::kBackend) + out.other;
  for (std::size_t i = 0; i < kOutcomes; ++i) {
    const auto outcome = static_cast<Outcome>(i);
    if (outcome != Outcome::kBackend)
      out.requests_rejected.emplace(outcome_name(outcome), total(outcome).count);
  }
}

BatchSizeTotal read_size(const Shards& shards, std::int64_t rows) {
  BatchSizeTotal out;
  out.rows = rows;
  std::uint64_t count = 0;
  for (const auto& shard : shards) {
    const SizeCounter* size = shard->of_rows(rows);
    if (size == nullptr) continue;
    count += read(size->count);
    out.compute_input.ns += read(size->gather_ns);
    out.compute_infer.ns += read(size->execute_ns);
    out.compute_output.ns += read(size->scatter_ns);
  }
  out.compute_input.count = out.compute_infer.count = out.compute_output.count = count;
  return out;
}

// Bounds 1, 2, 4 ... up to the first that holds the largest batch.
Histogram rows_histogram(std::int64_t sizes) {
  Histogram out;
  for (std::int64_t bound = 1;; bound *= 2) {
    out.upper_bounds.push_back(static_cast<double>(bound));
    if (bound >= sizes) break;
  }
  out.counts.assign(out.upper_bounds.size() + 1, 0);
  return out;
}

void read_sizes(const Statistics& from, VersionStatistics& out) {
  out.batch_rows = rows_histogram(from.sizes());
  for (std::int64_t rows = 1; rows <= from.sizes(); ++rows) {
    const BatchSizeTotal size = read_size(from.shards(), rows);
    const std::uint64_t count = size.compute_infer.count;
    if (count == 0) continue;
    out.execution_count += count;
    out.batch_rows.counts[static_cast<std::size_t>(std::bit_width(static_cast<std::uint64_t>(rows - 1)))] +=
        count;
    out.batch_rows.sum += static_cast<double>(rows) * static_cast<double>(count);
    out.batches.push_back(size);
  }
}

}  // namespace

VersionStatistics read_statistics(ModelVersion& version) {
  const Statistics& from = version.queue().statistics;
  const Shards& shards = from.shards();
  const StageSum queue(shards, &StatisticsShard::queue);
  const StageSum gather(shards, &StatisticsShard::gather);
  const StageSum execute(shards, &StatisticsShard::execute);
  const StageSum total(shards, &StatisticsShard::total);
  VersionStatistics out;
  out.inference_count = sum(shards, &StatisticsShard::rows_served);
  Nanos last_run = 0;
  for (const auto& shard : shards)
    last_run = std::max(last_run, shard->last_run.load(std::memory_order_relaxed));
  out.last_inference_ms = wall_clock_ms(last_run);
  out.success = total.total();
  read_outcomes(from, out);
  out.queue = queue.total();
  out.compute_input = gather.total();
  out.compute_infer = execute.total();
  out.compute_output = {out.compute_infer.count, sum(shards, &StatisticsShard::scatter_ns)};
  if (version.cached != nullptr) {
    out.cache_hit = {read(version.cached->hits), read(version.cached->hit_ns)};
    out.cache_miss = {read(version.cached->misses), read(version.cached->miss_ns)};
  }
  read_sizes(from, out);
  out.pending = version.queue().waiting();
  out.in_flight = version.unanswered();
  out.copied_bytes = read(from.copied_bytes);
  out.expired_executed = read(from.expired_executed);
  out.stage_seconds = {{"queue", queue.seconds()},
                       {"gather", gather.seconds()},
                       {"execute", execute.seconds()},
                       {"encode", StageSum(*version.encode_times).seconds()},
                       {"total", total.seconds()}};
  return out;
}

VersionStatus status_of(const ModelVersion& version) {
  const ModelVersion::View view = version.view();
  VersionStatus out;
  out.model = version.name;
  out.version = version.number;
  out.state = view.state;
  out.reason = view.reason;
  out.progress = view.progress;
  out.load_seconds = static_cast<double>(version.load_ns.load(std::memory_order_relaxed)) / 1e9;
  out.memory_bytes = version.memory_bytes.load(std::memory_order_relaxed);
  out.backend = version.spec().backend;
  if (!version.described()) return out;
  out.platform = version.platform();
  out.signature = version.signature;
  out.instance_count = version.instance_count();
  out.buckets = version.buckets();
  out.properties = version.properties();
  return out;
}

}  // namespace fastserve
