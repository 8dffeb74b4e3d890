#include "backend/cuda_ledger.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/checked.h"

namespace fastserve {
namespace {

std::uint64_t add(std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum = 0;
  return checked_add(a, b, sum) ? sum : std::numeric_limits<std::uint64_t>::max();
}

std::uint64_t minus(std::uint64_t a, std::uint64_t b) { return a > b ? a - b : 0; }

std::string parts_of(const DeviceNeeds& needs) {
  return "weights " + std::to_string(needs.weights) + ", activations " + std::to_string(needs.activations) +
         ", buffers " + std::to_string(needs.buffers) + ", graphs " + std::to_string(needs.graphs);
}

}  // namespace

std::uint64_t DeviceNeeds::sum() const { return add(add(weights, activations), add(buffers, graphs)); }

DeviceLedger::DeviceLedger(Device device, Ask ask) : device_(std::move(device)), ask_(std::move(ask)) {}

std::mutex& DeviceLedger::load_mutex() {
  static auto* const mutex = new std::mutex;
  return *mutex;
}

std::uint64_t DeviceLedger::budget() const {
  const auto total = static_cast<double>(device_.total);
  return static_cast<std::uint64_t>(std::floor(std::min(fraction_, 1.0 - kReserveFraction) * total));
}

std::uint64_t DeviceLedger::held_beside(const DeviceHolding* own) const {
  std::uint64_t held = 0;
  for (const DeviceHolding& each : holdings_) {
    if (&each != own) held = add(held, each.needs.sum());
  }
  return held;
}

Status DeviceLedger::check(const std::string& owner, const DeviceNeeds& want,
                           const DeviceHolding* own) const {
  const std::uint64_t most = budget();
  const std::uint64_t held = held_beside(own);
  const std::uint64_t left = minus(most, held);
  std::string holders;
  for (const DeviceHolding& each : holdings_) {
    if (&each == own) continue;
    holders += (holders.empty() ? "" : ", ") + each.owner + " " + std::to_string(each.needs.sum());
  }
  const std::string wants = "gpus[" + std::to_string(device_.ordinal) + "] (" + device_.name +
                            "): memory of the GPU: " + owner + ": got " + std::to_string(want.sum()) +
                            " bytes (" + parts_of(want) + ")";
  const std::string by = "; held by " + (holders.empty() ? "no model" : holders);
  if (want.sum() > left) {
    return {Code::kResourceExhausted, wants + ", want " + std::to_string(left) +
                                          " or fewer, which is what is left of " + std::to_string(most) + by};
  }
  // What others hold that no claim knows of (other processes, caches of frameworks) leaves less. The weights of a load that asks
  // again are there, and not free any more.
  const std::uint64_t to_come = want.sum() - (own != nullptr ? want.weights : 0);
  const std::optional<DeviceRoom> memory = ask_ ? ask_() : std::nullopt;
  if (!memory) return Status::ok();
  const std::uint64_t reserve =
      device_.total -
      static_cast<std::uint64_t>(std::floor((1.0 - kReserveFraction) * static_cast<double>(device_.total)));
  const std::uint64_t usable = minus(memory->free, reserve);
  if (to_come <= usable) return Status::ok();
  return {Code::kResourceExhausted,
          wants + ", of which " + std::to_string(to_come) + " are to come, want " + std::to_string(usable) +
              " or fewer: the driver has " + std::to_string(memory->free) + " free, of which " +
              std::to_string(reserve) + " stay in reserve" + by + "; other processes and caches hold " +
              std::to_string(minus(minus(device_.total, memory->free), held))};
}

Result<DeviceLedger::Claim> DeviceLedger::admit(std::string owner, const DeviceNeeds& needs) {
  const std::lock_guard lock(mutex_);
  if (Status status = check(owner, needs, nullptr); !status.is_ok()) {
    ++refused_;
    return status;
  }
  holdings_.push_back({std::move(owner), needs, true});
  return Claim(*this, std::prev(holdings_.end()));
}

void DeviceLedger::set_budget_fraction(double fraction) {
  const std::lock_guard lock(mutex_);
  fraction_ = std::clamp(fraction, 0.0, 1.0);
}

std::optional<std::uint64_t> DeviceLedger::free_bytes() const {
  const std::optional<DeviceRoom> memory = ask_ ? ask_() : std::nullopt;
  return memory ? std::optional(memory->free) : std::nullopt;
}

DeviceLedgerRow DeviceLedger::row() const {
  DeviceLedgerRow out;
  out.device = device_.ordinal;
  out.name = device_.name;
  out.uuid = device_.uuid;
  out.total = device_.total;
  out.free = free_bytes().value_or(0);
  const std::lock_guard lock(mutex_);
  out.budget = budget();
  out.held = held_beside(nullptr);
  out.refused = refused_;
  out.holdings.assign(holdings_.begin(), holdings_.end());
  return out;
}

DeviceLedger::Claim::Claim(Claim&& other) noexcept
    : ledger_(std::exchange(other.ledger_, nullptr)), at_(other.at_) {}

DeviceLedger::Claim& DeviceLedger::Claim::operator=(Claim&& other) noexcept {
  std::swap(ledger_, other.ledger_);
  std::swap(at_, other.at_);
  return *this;
}

DeviceLedger::Claim::~Claim() {
  if (ledger_ == nullptr) return;
  const std::lock_guard lock(ledger_->mutex_);
  ledger_->holdings_.erase(at_);
}

Status DeviceLedger::Claim::ask(const DeviceNeeds& needs) {
  const std::lock_guard lock(ledger_->mutex_);
  if (Status status = ledger_->check(at_->owner, needs, &*at_); !status.is_ok()) {
    ++ledger_->refused_;
    return status;
  }
  at_->needs = needs;
  return Status::ok();
}

void DeviceLedger::Claim::settle(const DeviceNeeds& needs) {
  const std::lock_guard lock(ledger_->mutex_);
  at_->needs = needs;
  at_->loading = false;
}

DeviceNeeds DeviceLedger::Claim::needs() const {
  if (ledger_ == nullptr) return {};
  const std::lock_guard lock(ledger_->mutex_);
  return at_->needs;
}

DeviceLedger& DeviceLedgers::open(DeviceLedger::Device device, DeviceLedger::Ask ask) {
  const std::lock_guard lock(mutex_);
  const auto at = std::ranges::lower_bound(ledgers_, device.ordinal, {}, &Row::ordinal);
  if (at != ledgers_.end() && at->ordinal == device.ordinal) return *at->ledger;
  const int ordinal = device.ordinal;
  auto made = std::make_unique<DeviceLedger>(std::move(device), std::move(ask));
  made->set_budget_fraction(fraction_);
  return *ledgers_.insert(at, Row{ordinal, std::move(made)})->ledger;
}

DeviceLedger* DeviceLedgers::find(int ordinal) {
  const std::lock_guard lock(mutex_);
  const auto at = std::ranges::lower_bound(ledgers_, ordinal, {}, &Row::ordinal);
  return at != ledgers_.end() && at->ordinal == ordinal ? at->ledger.get() : nullptr;
}

void DeviceLedgers::set_budget_fraction(double fraction) {
  const std::lock_guard lock(mutex_);
  fraction_ = fraction;
  for (const Row& row : ledgers_) row.ledger->set_budget_fraction(fraction);
}

std::vector<DeviceLedgerRow> DeviceLedgers::rows() const {
  std::vector<DeviceLedgerRow> out;
  const std::lock_guard lock(mutex_);
  for (const Row& row : ledgers_) out.push_back(row.ledger->row());
  return out;
}

DeviceLedgers& device_ledgers() {
  static auto* const ledgers = new DeviceLedgers;
  return *ledgers;
}

}  // namespace fastserve
