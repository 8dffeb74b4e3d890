// When the next request will come, learned from the past ones: the mean rate, and a forecast that knows bursts and clients
// that come back.
//
// The mean is 1 / (an exponentially weighted gap); it decays as soon as the present gap exceeds the mean one.
//
// The forecast keeps histograms of gaps (by octaves of time, with forgetting): from the end of a batch to the first arrival
// after it (a client in a closed loop asks again when it is answered), and from one arrival to the next, apart for whether
// all of the last batch have come back. An end of a batch in between cuts a gap off. Given how
// long ago the last such event is, `soon` is the highest rate at which waiting can buy an arrival when one gives up at the
// right moment:  max over w of  P(it comes within w) / E[time waited up to w]  - the index of J. C. Gittins, "Bandit
// processes and dynamic allocation indices", J. Royal Stat. Soc. B 41(2), 1979, for this stopping problem. For Poisson
// arrivals that is the mean rate whatever w; inside a burst it is far above, behind one below.
//
// Thread: the holder of the pull token, but rows_per_ns_relaxed(): any.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/clock.h"
#include "batch/policy.h"

namespace fastserve {

class ArrivalRate {
 public:
  static constexpr double kGapGain = 1.0 / 64;  // weight of the newest gap in the mean one

  // A request of so many rows came then. In the order of the intake; a stamp before the last one counts as the same moment.
  void arrived(std::int64_t rows, Nanos enqueued_ns);

  // A batch of so many rows ended then: whoever got an answer may ask again. Optional, but without it the policy does not
  // know clients that come back. Call it before the arrived() of what came after (at a pull: first this, then the intake).
  void answered(std::int64_t rows, Nanos ended_ns);

  // Rows per ns, long-run; 0: unknown (fewer than two arrivals).
  double rows_per_ns(Nanos now) const;

  // Fills what decide() wants to know about arrivals: arrivals_per_ns, late_per_ns, soon_per_ns, soon_until, then_per_ns,
  // return_per_ns, returning_rows. About 100 ns: not needed when the view fills a batch.
  void describe(QueueView& view, Nanos now) const;

  // As of the last arrival. For `explain`.
  double rows_per_ns_relaxed() const { return published_.load(std::memory_order_relaxed); }

 private:
  struct Forecast {
    double per_ns = 0;  // arrivals
    Nanos wait_ns = 0;  // from now, until which waiting for the next one pays at this rate
  };
  // Gaps by octave: cell 0 is below kFirst, cell i from kFirst * 2^(i-1).
  class Gaps {
   public:
    void add(Nanos gap);
    void add_endless();  // another event came before the next arrival: waiting for it would have been in vain
    Forecast at(Nanos age) const;

   private:
    static constexpr std::size_t kCells = 24;
    static constexpr Nanos kFirst = 4 * kMicrosecond;  // the last cell begins at 16 s
    void advance();
    static std::size_t cell_of(Nanos gap);
    static Nanos begin_of(std::size_t cell) { return cell == 0 ? 0 : kFirst << (cell - 1); }
    std::array<float, kCells> weight_{};
    float endless_ = 0;
    float next_weight_ = 1;  // grows instead of the others shrinking
    std::uint32_t count_ = 0;
  };

  void close_cycle(Nanos ended_ns);

  const Gaps& present() const {
    return last_answer_ != 0 ? after_answer_ : returning_ > 0 ? expecting_ : quiet_;
  }
  Gaps& present() { return last_answer_ != 0 ? after_answer_ : returning_ > 0 ? expecting_ : quiet_; }

  Gaps quiet_;      // after an arrival
  Gaps expecting_;  // after an arrival when others that were answered have not come back
  Gaps after_answer_;
  Nanos last_arrival_ = 0;  // 0: none yet
  Nanos last_answer_ = 0;   // 0: the next arrival's gap counts from the last arrival
  // From one answer to the next: rows that came in its last three quarters, and how long those are. Clients that come
  // back do so early; what is left is the rate of the others.
  Nanos cycle_began_ = 0;
  double cycle_ns_ = 0;        // mean
  double late_rows_ = 0;       // mean of a cycle
  double late_ns_ = 0;         // mean of a cycle
  std::int64_t late_now_ = 0;  // in this one
  std::uint32_t cycles_ = 0;
  double gap_ns_ = 0;           // mean
  double rows_ = 1;             // mean of a request
  std::int64_t returning_ = 0;  // rows of the last answer less the arrivals since
  std::uint32_t arrivals_ = 0;
  std::atomic<double> published_{0};
};

}  // namespace fastserve
