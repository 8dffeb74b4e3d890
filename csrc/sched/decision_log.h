// What the policy decided in the last 60 seconds: a ring of slots of one second, counters by reason and by rows.
// Thread: count and begin_second by whoever holds the model's pull token; read by any thread, which stops nobody. Takes its memory
// (up to 65 KB) when the first decision is counted, so that an idle model costs nothing.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "batch/policy.h"
#include "sched/statistics.h"

namespace fastserve {

class DecisionLog {
 public:
  static constexpr std::int64_t kSeconds = 60;

  struct Size {
    std::int64_t rows = 0;  // as run; sizes above 64 are counted in steps of an eighth of their power of two
    std::uint64_t count = 0;
  };
  struct View {
    double seconds = 0;                               // how much of the last minute is covered
    std::array<std::uint64_t, kReasons> decisions{};  // by reason; kCompany is the times that it waited
    std::vector<Size> batches;                        // ascending
    std::uint64_t requests = 0, rows = 0;             // of those batches
    std::uint64_t wait_ns = 0;                        // that their requests waited in the queue, all together
    // Requests that ended without an answer of the model, since the first decision of the minute.
    std::array<std::uint64_t, kOutcomes> outcomes{};
  };

  // `statistics` has the outcomes; outlives the log.
  DecisionLog(std::int64_t max_rows, const Statistics& statistics);

  // `run_rows`: what the device will run; `wait_ns`: of all the batch's requests together. Nothing to count when nothing waits.
  void count(Nanos now, const Decision& decision, std::int64_t run_rows, Nanos wait_ns);
  View read(Nanos now) const;

  static std::size_t column_of(std::int64_t rows);
  static std::int64_t rows_of(std::size_t column);  // the largest size of a column

 private:
  using Cell = std::atomic<std::uint64_t>;
  struct Slot {
    std::atomic<std::int64_t> second{-1};  // release when its counters are zero, acquire by readers
    std::array<Cell, kReasons> decisions{};
    Cell requests{0}, rows{0}, wait_ns{0};
    std::array<Cell, kOutcomes> outcomes_before{};  // the counters of `statistics` when the second began
  };
  struct Ring {
    explicit Ring(std::size_t columns) : batches(columns * kSeconds) {}
    std::array<Slot, kSeconds> slots;
    std::vector<std::atomic<std::uint32_t>> batches;  // [slot][column]
    std::atomic<std::int64_t> began{0};               // second of the first decision
  };
  Ring* ring();
  Slot& slot_of(Ring& ring, Nanos now);

  const std::size_t columns_;
  const Statistics& statistics_;
  std::unique_ptr<Ring> owned_;
  std::atomic<Ring*> ring_{nullptr};  // release when it is made, acquire by readers
  bool failed_ = false;               // no memory: counts nothing
};

}  // namespace fastserve
