#include "base/cpu_budget.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "base/cpu_limits.h"

namespace fastserve {

CpuBudget::CpuBudget(int machine, int usable)
    : machine_(std::max(machine, 1)), usable_(std::clamp(usable, 1, machine_)), threads_(usable_) {}

CpuBudget& CpuBudget::process() {
  // Never destroyed: OpenVINO's threads may still give back while the process exits.
  static auto* budget = [] {
    const int machine = static_cast<int>(affinity_cpus().size());
    return new CpuBudget(machine, usable_cpus(machine, cgroup_cpus()));
  }();
  return *budget;
}

void CpuBudget::limit_threads(int threads) {
  threads_.store(threads <= 0 ? usable_ : std::min(threads, machine_), std::memory_order_relaxed);
}

// A run that wants more than there is gets all of it.
bool CpuBudget::fits(const Turn& turn) const {
  return taken_ + std::min(turn.threads, threads()) <= threads();
}

bool CpuBudget::take(Turn& turn) {
  turn.held = gated();
  if (!turn.held) return true;
  turn.threads = std::clamp(turn.threads, 1, threads());
  turn.next = nullptr;
  const std::lock_guard lock(mutex_);
  if (first_ == nullptr && fits(turn)) {
    taken_ += turn.threads;
    return true;
  }
  (first_ == nullptr ? first_ : last_->next) = &turn;
  last_ = &turn;
  return false;
}

void CpuBudget::give_back(Turn& turn) {
  if (!std::exchange(turn.held, false)) return;
  Turn* starts = nullptr;  // in their order
  {
    const std::lock_guard lock(mutex_);
    taken_ -= turn.threads;
    Turn** end = &starts;
    while (first_ != nullptr && fits(*first_)) {
      taken_ += first_->threads;
      *end = first_;
      end = &first_->next;
      first_ = first_->next;
    }
    *end = nullptr;
  }
  while (starts != nullptr) {
    Turn* const next = starts->next;  // before start(): the run may end there, and its turn be taken anew
    starts->start(*starts);
    starts = next;
  }
}

CpuBudget::Runs CpuBudget::runs() const {
  // Ended first: a run that ends meanwhile must not look as if it had ended before it began.
  const std::uint64_t ended = ended_.load(std::memory_order_relaxed);
  return {started_.load(std::memory_order_relaxed), ended};
}

bool CpuBudget::idle_for(Nanos window) const {
  const Runs before = runs();
  if (before.started == 0) return true;
  if (!before.none()) return false;
  std::this_thread::sleep_for(std::chrono::nanoseconds(window));
  return runs() == before;
}

int& PreparingScope::depth() {
  thread_local int depth = 0;
  return depth;
}

}  // namespace fastserve
