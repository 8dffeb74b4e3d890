// _core.Engine.response_cache(): what the response cache holds.
#include "bind/engine.h"

namespace py = pybind11;

namespace fastserve::bind {

void register_response_cache(py::class_<PyEngine>& engine) {
  engine.def("response_cache", [](PyEngine& self) {
    const ResponseCacheTotals totals = self.engine().response_cache();
    py::dict out;
    out["capacity_bytes"] = totals.capacity_bytes;
    out["bytes"] = totals.bytes;
    out["entries"] = totals.entries;
    out["evictions"] = totals.evictions;
    out["too_large"] = totals.too_large;
    return out;
  });
}

}  // namespace fastserve::bind
