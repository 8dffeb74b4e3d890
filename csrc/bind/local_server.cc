// _core.LocalServer: the local transport's front end (frontend/local_server.h) of an engine.
#include "frontend/local_server.h"

#include <pybind11/stl.h>

#include <memory>

#include "bind/engine.h"
#include "bind/errors.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

template <class Tallies>
py::dict by_code(const Tallies& tallies) {
  py::dict named;
  for (std::size_t code = 0; code < tallies.size(); ++code)
    named[py::str(std::string(code_name(static_cast<Code>(code))))] = tallies[code].get();
  return named;
}

// Thread: any, with the interpreter lock held.
class PyLocalServer {
 public:
  PyLocalServer(PyEngine& engine, LocalLimits limits)
      : engine_(engine.shared()), server_(std::make_unique<LocalServer>(*engine_, std::move(limits))) {}
  ~PyLocalServer() { close(); }

  LocalServer& server() {
    if (!server_) raise(unavailable("the local server is closed"));
    return *server_;
  }

  // The last counters stay readable.
  void close() {
    if (!server_) return;
    last_ = statistics();
    std::unique_ptr<LocalServer> last = std::move(server_);
    std::shared_ptr<Engine> engine = std::move(engine_);
    const py::gil_scoped_release unlocked;  // waits for what the engine still has
    last.reset();
    engine.reset();
  }

  py::dict statistics() {
    if (!server_) return last_;
    const LocalCounters& counters = server_->counters();
    py::dict all;
    all["connections"] = counters.connections.get();
    all["accepted"] = counters.accepted.get();
    all["connections_refused"] = counters.connections_refused.get();
    all["connections_broken"] = counters.connections_broken.get();
    all["regions"] = counters.regions.get();
    all["region_bytes"] = counters.region_bytes.get();
    all["open_calls"] = counters.open_calls.get();
    all["requests"] = counters.requests.get();
    all["doorbells"] = counters.doorbells.get();
    all["wakes"] = counters.wakes.get();
    all["requests_refused"] = by_code(counters.refused_by_code);
    all["control_refused"] = by_code(counters.control_refused_by_code);
    return all;
  }

 private:
  std::shared_ptr<Engine> engine_;
  std::unique_ptr<LocalServer> server_;
  py::dict last_;
};

UniqueFd duplicate(int fd) {
  UniqueFd copy(::dup(fd));
  if (!copy.valid()) raise({Code::kResourceExhausted, "no descriptor left"});
  return copy;
}

}  // namespace

void register_local_server(py::module_& module) {
  py::class_<PyLocalServer>(module, "LocalServer")
      .def(py::init([](PyEngine& engine, std::size_t connections, std::uint32_t cells, std::size_t regions,
                       std::size_t region_bytes, std::size_t total_region_bytes, std::size_t models,
                       std::size_t string_bytes, double handshake_seconds, std::vector<uid_t> uids) {
             LocalLimits limits;
             limits.max_connections = connections;
             limits.max_cells = cells;
             limits.max_regions = regions;
             limits.max_region_bytes = region_bytes;
             limits.max_total_region_bytes = total_region_bytes;
             limits.max_models = models;
             limits.max_string_bytes = string_bytes;
             limits.handshake_timeout_ns = static_cast<Nanos>(handshake_seconds * kSecond);
             limits.uids = std::move(uids);
             return std::make_unique<PyLocalServer>(engine, std::move(limits));
           }),
           py::arg("engine"), py::kw_only(), py::arg("max_connections") = LocalLimits().max_connections,
           py::arg("max_cells") = LocalLimits().max_cells, py::arg("max_regions") = LocalLimits().max_regions,
           py::arg("max_region_bytes") = LocalLimits().max_region_bytes,
           py::arg("max_total_region_bytes") = LocalLimits().max_total_region_bytes,
           py::arg("max_models") = LocalLimits().max_models,
           py::arg("max_string_bytes") = LocalLimits().max_string_bytes, py::arg("handshake_timeout_s") = 5.0,
           py::arg("uids") = std::vector<uid_t>())
      .def(
          "listen", [](PyLocalServer& self, int fd) { self.server().listen(duplicate(fd)); }, py::arg("fd"))
      .def("stop_listening", [](PyLocalServer& self) { self.server().stop_listening(); })
      .def(
          "adopt", [](PyLocalServer& self, int fd) { self.server().adopt(duplicate(fd)); }, py::arg("fd"))
      .def("close", &PyLocalServer::close)
      .def("statistics", &PyLocalServer::statistics);
}

}  // namespace fastserve::bind
