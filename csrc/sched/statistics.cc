#include "sched/statistics.h"

#include <algorithm>
#include <bit>
#include <new>

namespace fastserve {
namespace {

template <Writers kWriters>
void add_ns(Counter& to, Nanos ns) {
  count<kWriters>(to, static_cast<std::uint64_t>(ns));
}

}  // namespace

std::string_view outcome_name(Outcome outcome) {
  constexpr std::array<std::string_view, kOutcomes> kNames{"queue_full", "queue_timeout", "cancelled",
                                                           "deadline",   "unloading",     "backend",
                                                           "too_late",   "client_memory"};
  return kNames[static_cast<std::size_t>(outcome)];
}

StatisticsShard::~StatisticsShard() {
  for (const auto& piece : pieces_) delete[] piece.load(std::memory_order_relaxed);
}

StatisticsShard::Place StatisticsShard::place_of(std::int64_t rows) const {
  const auto counted = static_cast<std::size_t>(std::clamp<std::int64_t>(rows, 1, sizes));
  const auto piece = static_cast<std::size_t>(std::bit_width(counted)) - 1;
  return {piece, counted - (std::size_t{1} << piece)};
}

const SizeCounter* StatisticsShard::of_rows(std::int64_t rows) const {
  const Place place = place_of(rows);
  const SizeCounter* piece = pieces_[place.piece].load(std::memory_order_acquire);
  return piece == nullptr ? nullptr : piece + place.at;
}

SizeCounter* StatisticsShard::make_of_rows(std::int64_t rows) {
  const Place place = place_of(rows);
  std::atomic<SizeCounter*>& piece = pieces_[place.piece];
  SizeCounter* known = piece.load(std::memory_order_acquire);
  if (known != nullptr) return known + place.at;
  const std::size_t first = std::size_t{1} << place.piece;
  const std::size_t length = std::min(first, static_cast<std::size_t>(sizes) - first + 1);
  auto* made = new (std::nothrow) SizeCounter[length];
  if (made == nullptr) return nullptr;
  if (piece.compare_exchange_strong(known, made, std::memory_order_acq_rel)) return made + place.at;
  delete[] made;  // somebody else was faster (the common shard has many writers)
  return known + place.at;
}

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
  if (batch.served == 0 && batch.parts == 0) return;
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
  SizeCounter* const size = shard_.make_of_rows(batch.rows);
  if (size == nullptr) return;
  count<kWriters>(size->count);
  add_ns<kWriters>(size->gather_ns, batch.gather_ns);
  add_ns<kWriters>(size->execute_ns, batch.execute_ns);
  add_ns<kWriters>(size->scatter_ns, batch.scatter_ns);
}

}  // namespace fastserve
