// What of the GPU lane's memory holds for the process: the budget of page-locked memory, that of the devices, and what is used.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#ifdef FASTSERVE_CUDA_LANE
#include "backend/cuda_ledger.h"
#endif
#include "bind/engine.h"
#include "memory/pinned_arena.h"
#include "memory/pinned_ranges.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

py::dict pinned_memory() {
  const PinnedTotals arena = pinned_arena().totals();
  const PinnedRangeTotals clients = pinned_ranges().totals();
  py::dict out;
  out["active"] = clients.active;
  out["budget"] = arena.budget;
  out["slab_bytes"] = arena.slab_bytes;
  out["used_bytes"] = arena.used_bytes;
  out["pageable_bytes"] = arena.pageable_bytes;
  out["over_budget"] = arena.over_budget;
  out["refused"] = arena.refused;
  out["client_budget"] = clients.budget;
  out["client_ranges"] = clients.ranges;
  out["client_bytes"] = clients.bytes;
  out["client_refused"] = clients.refused;
  return out;
}

#ifdef FASTSERVE_CUDA_LANE

py::dict holding(const DeviceHolding& from) {
  py::dict out;
  out["owner"] = from.owner;
  out["weights"] = from.needs.weights;
  out["activations"] = from.needs.activations;
  out["buffers"] = from.needs.buffers;
  out["graphs"] = from.needs.graphs;
  out["loading"] = from.loading;
  return out;
}

// Asks the drivers of the devices that came up, which may wait for a load.
py::list gpu_memory() {
  std::vector<DeviceLedgerRow> rows;
  {
    const py::gil_scoped_release unlocked;
    rows = device_ledgers().rows();
  }
  py::list out;
  for (const DeviceLedgerRow& row : rows) {
    py::dict each;
    each["device"] = row.device;
    each["name"] = row.name;
    each["uuid"] = row.uuid;
    each["total"] = row.total;
    each["free"] = row.free;
    each["budget"] = row.budget;
    each["held"] = row.held;
    each["refused"] = row.refused;
    py::list holdings;
    for (const DeviceHolding& one : row.holdings) holdings.append(holding(one));
    each["holdings"] = holdings;
    out.append(each);
  }
  return out;
}

void limit_gpu_memory(double fraction) { device_ledgers().set_budget_fraction(fraction); }

#else

py::list gpu_memory() { return py::list(); }
void limit_gpu_memory(double /*fraction*/) {}

#endif

}  // namespace

void register_pinned(py::module_& module) {
  module.def(
      "limit_pinned_memory",
      [](std::uint64_t pool_bytes, std::uint64_t client_bytes) {
        pinned_arena().set_budget(pool_bytes);
        pinned_ranges().limit_clients(client_bytes);
      },
      py::kw_only(), py::arg("pool_bytes") = PinnedArena::kDefaultBudget,
      py::arg("client_bytes") = PinnedRanges::kDefaultClientBytes);
  module.def("pinned_memory", &pinned_memory);
  module.def("limit_gpu_memory", &limit_gpu_memory, py::arg("fraction"));
  module.def("gpu_memory", &gpu_memory);
}

}  // namespace fastserve::bind
