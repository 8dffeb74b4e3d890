#include "sched/decision_log.h"

#include <algorithm>
#include <bit>
#include <new>

namespace fastserve {
namespace {

constexpr std::size_t kExact = 64;
constexpr std::size_t kSteps = 8;  // in each power of two above

// One writer, who holds the token.
template <class T>
void add(std::atomic<T>& cell, std::uint64_t n) {
  cell.store(cell.load(std::memory_order_relaxed) + static_cast<T>(n), std::memory_order_relaxed);
}

template <class T>
std::uint64_t get(const std::atomic<T>& cell) {
  return cell.load(std::memory_order_relaxed);
}

template <class T>
void clear(std::atomic<T>& cell) {
  cell.store(0, std::memory_order_relaxed);
}

}  // namespace

std::size_t DecisionLog::column_of(std::int64_t rows) {
  const auto n = static_cast<std::size_t>(std::clamp<std::int64_t>(rows, 1, Statistics::kMaxSizes));
  if (n <= kExact) return n - 1;
  const auto power = static_cast<std::size_t>(std::bit_width(n - 1)) - 1;  // 2^power < n <= 2^(power+1)
  const std::size_t step = (std::size_t{1} << power) / kSteps;
  const std::size_t in_power = (n - (std::size_t{1} << power) + step - 1) / step;  // 1..kSteps
  return kExact + (power - 6) * kSteps + in_power - 1;
}

std::int64_t DecisionLog::rows_of(std::size_t column) {
  if (column < kExact) return static_cast<std::int64_t>(column) + 1;
  const std::size_t power = 6 + (column - kExact) / kSteps;
  const std::size_t in_power = (column - kExact) % kSteps + 1;
  return static_cast<std::int64_t>((std::size_t{1} << power) +
                                   in_power * ((std::size_t{1} << power) / kSteps));
}

DecisionLog::DecisionLog(std::int64_t max_rows, const Statistics& statistics)
    : columns_(column_of(max_rows) + 1), statistics_(statistics) {}

DecisionLog::Ring* DecisionLog::ring() {
  Ring* made = ring_.load(std::memory_order_relaxed);
  if (made != nullptr || failed_) return made;
  try {
    owned_ = std::make_unique<Ring>(columns_);
  } catch (const std::bad_alloc&) {
    failed_ = true;
    return nullptr;
  }
  ring_.store(owned_.get(), std::memory_order_release);  // partner: read
  return owned_.get();
}

DecisionLog::Slot& DecisionLog::slot_of(Ring& ring, Nanos now) {
  const std::int64_t second = now / kSecond;
  const auto at = static_cast<std::size_t>(second % kSeconds);
  Slot& slot = ring.slots[at];
  if (slot.second.load(std::memory_order_relaxed) == second) return slot;
  if (get(ring.began) == 0) ring.began.store(second, std::memory_order_relaxed);
  slot.second.store(-1, std::memory_order_relaxed);
  for (Cell& cell : slot.decisions) clear(cell);
  for (Cell* cell : {&slot.requests, &slot.rows, &slot.wait_ns}) clear(*cell);
  for (std::size_t i = 0; i < columns_; ++i) clear(ring.batches[at * columns_ + i]);
  for (std::size_t i = 0; i < kOutcomes; ++i) {
    slot.outcomes_before[i].store(fastserve::read(statistics_.of(static_cast<Outcome>(i)).count),
                                  std::memory_order_relaxed);
  }
  slot.second.store(second, std::memory_order_release);  // partner: read
  return slot;
}

void DecisionLog::count(Nanos now, const Decision& decision, std::int64_t run_rows, Nanos wait_ns) {
  if (decision.reason == Reason::kNothingWaits && decision.requests == 0) return;
  Ring* const ring = this->ring();
  if (ring == nullptr) return;
  Slot& slot = slot_of(*ring, now);
  add(slot.decisions[static_cast<std::size_t>(decision.reason)], 1);
  if (decision.requests == 0) return;
  const std::size_t column = std::min(column_of(run_rows), columns_ - 1);
  add(ring->batches[static_cast<std::size_t>(&slot - ring->slots.data()) * columns_ + column], 1);
  add(slot.requests, decision.requests);
  add(slot.rows, static_cast<std::uint64_t>(decision.rows));
  add(slot.wait_ns, static_cast<std::uint64_t>(std::max<Nanos>(wait_ns, 0)));
}

DecisionLog::View DecisionLog::read(Nanos now) const {
  View out;
  const Ring* const ring = ring_.load(std::memory_order_acquire);
  if (ring == nullptr) return out;
  const std::int64_t last = now / kSecond;
  std::vector<std::uint64_t> batches(columns_);
  const Slot* oldest = nullptr;
  std::int64_t oldest_second = 0;
  for (std::size_t at = 0; at < ring->slots.size(); ++at) {
    const Slot& slot = ring->slots[at];
    const std::int64_t second = slot.second.load(std::memory_order_acquire);
    if (second < 0 || second > last || second <= last - kSeconds) continue;
    if (oldest == nullptr || second < oldest_second) {
      oldest = &slot;
      oldest_second = second;
    }
    for (std::size_t i = 0; i < kReasons; ++i) out.decisions[i] += get(slot.decisions[i]);
    out.requests += get(slot.requests);
    out.rows += get(slot.rows);
    out.wait_ns += get(slot.wait_ns);
    for (std::size_t i = 0; i < columns_; ++i) batches[i] += get(ring->batches[at * columns_ + i]);
  }
  if (oldest == nullptr) return out;
  for (std::size_t i = 0; i < kOutcomes; ++i) {
    const std::uint64_t ever = fastserve::read(statistics_.of(static_cast<Outcome>(i)).count);
    out.outcomes[i] = ever - std::min(ever, get(oldest->outcomes_before[i]));
  }
  for (std::size_t i = 0; i < columns_; ++i) {
    if (batches[i] != 0) out.batches.push_back({rows_of(i), batches[i]});
  }
  const double in_second = static_cast<double>(now % kSecond) / static_cast<double>(kSecond);
  out.seconds = std::min(static_cast<double>(last - ring->began.load(std::memory_order_relaxed)),
                         static_cast<double>(kSeconds - 1)) +
                in_second;
  return out;
}

}  // namespace fastserve
