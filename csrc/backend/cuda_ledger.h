// Who holds how much memory of a GPU, and who may still come: admission of models, per device.
//
// The budget is a part of the device's memory (default 95 %: 5 % stay in reserve for the driver, other processes and fragmentation).
// A load says what it will need before it allocates, is refused with RESOURCE_EXHAUSTED when that does not fit, and puts its claim
// right when it knows better:
//     std::lock_guard loading(ledger.load_mutex());     // measured differences are of one load
//     admit(owner, {.weights = file bytes})             before the model is opened
//     claim.ask({.weights = w, .activations = a, ...})  before lanes allocate; all of it, not a difference
//     claim.settle({..., .graphs = measured})           at the end, what it really took; never refused
//     ~Claim                                            unloaded: everything is given back
// What other processes (or torch's cache) hold shows in the free memory that the driver reports and is respected as well.
// No CUDA here: memory is asked through a function, so the rules are tested with made-up devices.
// Thread: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"

namespace fastserve {

// What one loaded version takes on one device; bytes.
struct DeviceNeeds {
  std::uint64_t weights = 0;      // the engine or model itself
  std::uint64_t activations = 0;  // lanes x the largest size's
  std::uint64_t buffers = 0;      // inputs and outputs of all lanes
  std::uint64_t graphs = 0;       // instantiated graphs, measured

  std::uint64_t sum() const;  // saturates
  bool operator==(const DeviceNeeds&) const = default;
};

struct DeviceRoom {
  std::uint64_t free = 0;
  std::uint64_t total = 0;
};

struct DeviceHolding {
  std::string owner;  // "model 'm' version 3"
  DeviceNeeds needs;
  bool loading = false;  // not settled yet
};

struct DeviceLedgerRow {
  int device = 0;
  std::string name;  // "NVIDIA H200"
  std::string uuid;  // "GPU-..." or "MIG-..."
  std::uint64_t total = 0;
  std::uint64_t free = 0;  // as the driver says now; 0: it does not
  std::uint64_t budget = 0;
  std::uint64_t held = 0;
  std::uint64_t refused = 0;            // loads, ever
  std::vector<DeviceHolding> holdings;  // in the order in which they came
};

class DeviceLedger {
 public:
  static constexpr double kReserveFraction = 0.05;  // of the total, which no budget reaches into

  using Ask = std::function<std::optional<DeviceRoom>()>;  // nullopt: the driver does not say

  struct Device {
    int ordinal = 0;
    std::string name;
    std::string uuid;
    std::uint64_t total = 0;
  };

  DeviceLedger(Device device, Ask ask);
  DeviceLedger(const DeviceLedger&) = delete;
  DeviceLedger& operator=(const DeviceLedger&) = delete;

  // One version's part of it, given back at its end. Movable; one owner.
  class Claim {
   public:
    Claim() = default;
    Claim(Claim&& other) noexcept;
    Claim& operator=(Claim&& other) noexcept;
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;
    ~Claim();

    // Wants this much instead, when the weights are there and the rest is to come. RESOURCE_EXHAUSTED, and the claim stays as it was.
    Status ask(const DeviceNeeds& needs);
    // It took this much; also beyond the budget, since it is there.
    void settle(const DeviceNeeds& needs);
    DeviceNeeds needs() const;
    explicit operator bool() const { return ledger_ != nullptr; }

   private:
    friend class DeviceLedger;
    Claim(DeviceLedger& ledger, std::list<DeviceHolding>::iterator at) : ledger_(&ledger), at_(at) {}
    DeviceLedger* ledger_ = nullptr;
    std::list<DeviceHolding>::iterator at_;
  };

  // `owner` stands in messages: "model 'm' version 3".
  // RESOURCE_EXHAUSTED: "gpus[0] (NVIDIA H200): memory of the GPU: model 'm' version 3: got 9663676416 bytes (weights ..., ...),
  // want N or fewer, which is what is left of M; held by model 'a' version 1 N, ...".
  Result<Claim> admit(std::string owner, const DeviceNeeds& needs);

  // Fraction of the total that models may take, (0, 1]; the reserve stays free anyway.
  void set_budget_fraction(double fraction);

  // Free memory now, to measure what a step takes: before - after, holding load_mutex(). nullopt: the driver does not say.
  std::optional<std::uint64_t> free_bytes() const;

  // Held while a version loads: one load of the process at a time measures, opens or captures. The same for all devices.
  static std::mutex& load_mutex();

  DeviceLedgerRow row() const;

 private:
  Status check(const std::string& owner, const DeviceNeeds& want, const DeviceHolding* own) const;
  std::uint64_t budget() const;
  std::uint64_t held_beside(const DeviceHolding* own) const;

  const Device device_;
  const Ask ask_;
  mutable std::mutex mutex_;  // guards what follows
  std::list<DeviceHolding> holdings_;
  double fraction_ = 1.0;
  std::uint64_t refused_ = 0;
};

// The process's ledgers, one for each device that came up. Never destroyed.
class DeviceLedgers {
 public:
  // Made at the first call for an ordinal; later calls return the same. `ask` of the first is kept.
  DeviceLedger& open(DeviceLedger::Device device, DeviceLedger::Ask ask);
  DeviceLedger* find(int ordinal);            // nullptr: it never came up
  void set_budget_fraction(double fraction);  // of all, also of those that come up later
  std::vector<DeviceLedgerRow> rows() const;  // by ordinal

 private:
  struct Row {
    int ordinal = 0;
    std::unique_ptr<DeviceLedger> ledger;
  };
  mutable std::mutex mutex_;  // guards what follows
  double fraction_ = 1.0;
  std::vector<Row> ledgers_;  // ascending by ordinal
};
DeviceLedgers& device_ledgers();

// The ledger of a device of the driver: total, name and UUID asked from it, free memory by cuMemGetInfo in its primary context.
// Errors as cuda_driver() has them.
Result<DeviceLedger*> open_device_ledger(int ordinal);

}  // namespace fastserve
