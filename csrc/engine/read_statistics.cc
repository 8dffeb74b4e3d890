// Counters -> the numbers that metrics and the statistics extension show.
#include <chrono>

#include "engine/engine_impl.h"

namespace fastserve {
namespace {

std::uint64_t read(const std::atomic<std::uint64_t>& counter) {
  return counter.load(std::memory_order_relaxed);
}

StageTotal total(const OutcomeCounter& counter) { return {read(counter.count), read(counter.ns)}; }
StageTotal total(const StageCounter& counter) { return {counter.count(), counter.sum_ns()}; }

Histogram histogram(const StageCounter& counter) {
  Histogram out;
  out.upper_bounds.assign(kStageBoundsSeconds.begin(), kStageBoundsSeconds.end());
  for (std::size_t i = 0; i < kStageBuckets; ++i) out.counts.push_back(counter.in_bucket(i));
  out.sum = static_cast<double>(counter.sum_ns()) * 1e-9;
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

void read_sizes(const Statistics& from, VersionStatistics& out) {
  for (std::int64_t rows = 1; rows <= from.sizes(); ++rows) {
    const SizeCounter& size = from.of_rows(rows);
    const std::uint64_t count = read(size.count);
    if (count == 0) continue;
    out.execution_count += count;
    out.batches.push_back({rows,
                           {count, read(size.gather_ns)},
                           {count, read(size.execute_ns)},
                           {count, read(size.scatter_ns)}});
  }
}

}  // namespace

VersionStatistics read_statistics(ModelVersion& version) {
  const Statistics& from = version.queue().statistics;
  VersionStatistics out;
  out.inference_count = read(from.rows_served);
  out.last_inference_ms = wall_clock_ms(from.last_run.load(std::memory_order_relaxed));
  out.success = total(from.total);
  out.fail = total(from.failed);
  out.cancel = total(from.cancelled);
  out.rejected = total(from.rejected);
  out.queue = total(from.queue);
  out.compute_input = total(from.gather);
  out.compute_infer = total(from.execute);
  out.compute_output = {out.success.count, read(from.scatter_ns)};
  read_sizes(from, out);
  out.pending = version.queue().waiting();
  out.in_flight = version.unanswered();
  out.stage_seconds = {{"queue", histogram(from.queue)},
                       {"gather", histogram(from.gather)},
                       {"execute", histogram(from.execute)},
                       {"total", histogram(from.total)}};
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
