#include "memory/pinned_ranges.h"

#include <atomic>
#include <functional>
#include <string>
#include <utility>

#include "base/log.h"

namespace fastserve {
namespace {

void say_once(const Status& refusal) {
  static std::atomic<bool> said{false};
  if (said.exchange(true, std::memory_order_relaxed)) return;
  log(LogLevel::kWarning, "shared memory of a client stays pageable, its copies to the GPU are staged: " +
                              refusal.message() + " (said once; see fastserve_pinned_regions_refused_total)");
}

}  // namespace

void PinnedRanges::start(PageLock& lock) {
  std::unique_lock held(mutex_);
  PageLock* none = nullptr;
  // Under the mutex: whoever adds a range sees it, or is seen as waiting below.
  if (!lock_.compare_exchange_strong(none, &lock, std::memory_order_acq_rel)) return;
  for (auto at = entries_.begin(); at != entries_.end();) {
    std::byte* const begin = at->first;
    if (at->second.state == State::kWaiting) lock_entry(begin, held);
    at = entries_.upper_bound(begin);  // others may have come and gone meanwhile
  }
}

bool PinnedRanges::holds(const void* at, std::size_t bytes) const {
  if (locked_.load(std::memory_order_acquire) == 0 || bytes == 0) return false;
  auto* const first = const_cast<std::byte*>(static_cast<const std::byte*>(at));  // only compared
  const std::shared_lock held(mutex_);
  auto found = entries_.upper_bound(first);
  if (found == entries_.begin()) return false;
  --found;
  const auto offset = static_cast<std::size_t>(first - found->first);
  const Entry& entry = found->second;
  return entry.state == State::kLocked && offset < entry.bytes && bytes <= entry.bytes - offset;
}

Status PinnedRanges::lock_slab(std::byte* begin, std::size_t bytes) {
  PageLock* const lock = lock_.load(std::memory_order_acquire);
  if (lock == nullptr) return {Code::kFailedPrecondition, "page-locked memory: no GPU is in use"};
  FS_RETURN_IF_ERROR(lock->lock(begin, bytes));
  const std::unique_lock held(mutex_);
  entries_[begin] = {bytes, State::kLocked, true};
  locked_.fetch_add(1, std::memory_order_release);
  return Status::ok();
}

void PinnedRanges::unlock_slab(std::byte* begin) { remove(begin); }

PinnedRangeTotals PinnedRanges::totals() const {
  PinnedRangeTotals out;
  out.active = active();
  out.budget = budget_.load(std::memory_order_relaxed);
  const std::shared_lock held(mutex_);
  for (const auto& [begin, entry] : entries_) {
    if (entry.slab) continue;
    out.waiting += entry.state == State::kWaiting ? 1 : 0;
    if (entry.state != State::kLocked) continue;
    ++out.ranges;
    out.bytes += entry.bytes;
  }
  out.refused = refused_;
  return out;
}

void PinnedRanges::add(std::byte* begin, std::size_t bytes) {
  std::unique_lock held(mutex_);
  entries_[begin] = {bytes, State::kWaiting, false};
  if (active()) lock_entry(begin, held);
}

void PinnedRanges::remove(std::byte* begin) {
  std::unique_lock held(mutex_);
  settled_.wait(held, [&] { return entries_.at(begin).state != State::kLocking; });
  const Entry entry = entries_.at(begin);
  entries_.erase(begin);  // nobody finds it from here on
  if (entry.state != State::kLocked) return;
  locked_.fetch_sub(1, std::memory_order_release);
  if (!entry.slab) client_bytes_ -= entry.bytes;
  held.unlock();
  lock_.load(std::memory_order_acquire)->unlock(begin);
}

// Of a waiting entry of a client. The mutex is open while the driver works; remove() waits for that.
void PinnedRanges::lock_entry(std::byte* begin, std::unique_lock<std::shared_mutex>& held) {
  Entry& entry = entries_.at(begin);
  const std::uint64_t budget = budget_.load(std::memory_order_relaxed);
  Status status;
  if (client_bytes_ > budget || entry.bytes > budget - client_bytes_) {
    status = {Code::kResourceExhausted, "got " + std::to_string(entry.bytes) + " bytes beside " +
                                            std::to_string(client_bytes_) + " that are page-locked, want " +
                                            std::to_string(budget) + " or fewer together"};
  } else {
    client_bytes_ += entry.bytes;
    entry.state = State::kLocking;
    held.unlock();
    status = lock_.load(std::memory_order_acquire)->lock(begin, entry.bytes);
    held.lock();
    if (!status.is_ok()) client_bytes_ -= entry.bytes;
  }
  entry.state = status.is_ok() ? State::kLocked : State::kRefused;
  if (status.is_ok()) {
    locked_.fetch_add(1, std::memory_order_release);
  } else {
    ++refused_;
    say_once(status);
  }
  settled_.notify_all();
}

PinnedRange::PinnedRange(PinnedRanges& ranges, std::byte* begin, std::size_t bytes)
    : ranges_(bytes == 0 ? nullptr : &ranges), begin_(begin) {
  if (ranges_ != nullptr) ranges_->add(begin_, bytes);
}

PinnedRange::~PinnedRange() {
  if (ranges_ != nullptr) ranges_->remove(begin_);
}

PinnedRange::PinnedRange(PinnedRange&& other) noexcept
    : ranges_(std::exchange(other.ranges_, nullptr)), begin_(other.begin_) {}

PinnedRange& PinnedRange::operator=(PinnedRange&& other) noexcept {
  std::swap(ranges_, other.ranges_);
  std::swap(begin_, other.begin_);
  return *this;
}

PinnedRanges& pinned_ranges() {
  static PinnedRanges* const ranges = new PinnedRanges;
  return *ranges;
}

}  // namespace fastserve
