// The backends that run models in worker processes (csrc/backend/worker_backend.h), as Python registers them.
#include <pybind11/stl.h>
#include <sys/socket.h>

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "backend/worker_backend.h"
#include "bind/engine.h"
#include "frontend/local_server.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

// The way of calls from inside models: a local transport's server that nobody can find, each worker gets a connected socket.
// Its thread starts with the first worker. Thread: connect() by the workers' supervisors.
class WorkerCalls {
 public:
  explicit WorkerCalls(Engine& engine) : engine_(engine) {}

  UniqueFd connect() {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) return {};
    UniqueFd ours(ends[0]);
    UniqueFd theirs(ends[1]);
    const std::lock_guard lock(mutex_);
    if (server_ == nullptr) {
      LocalLimits limits;
      limits.max_connections = 4096;
      limits.handshake_timeout_ns =
          100LL * 365 * 86'400 * kSecond;  // with the first call, if one is ever made
      server_ = std::make_unique<LocalServer>(engine_, std::move(limits));
    }
    server_->adopt(std::move(ours));
    return theirs;
  }

 private:
  Engine& engine_;
  std::mutex mutex_;
  std::unique_ptr<LocalServer> server_;
};

void use_workers(PyEngine& self, const std::map<std::string, std::string>& refusals,
                 std::vector<std::string> command, std::map<std::string, std::string> environment) {
  if (command.empty()) throw py::value_error("command: got none, want at least the interpreter");
  const auto calls = std::make_shared<WorkerCalls>(self.engine());
  self.keep_beside(calls);
  const auto connect = [weak = std::weak_ptr(calls)](const std::string&) {
    const auto open = weak.lock();
    return open != nullptr ? open->connect() : UniqueFd();
  };
  for (const auto& [kind, refusal] : refusals) {
    self.engine().backends().add_owned(
        make_worker_backend({kind, {command, environment}, refusal, self.workers, connect}));
  }
}

}  // namespace

bool workers_can_serve(PyEngine& self, const std::string& model, const std::string& version) {
  const std::vector<WorkerReport> reports = self.workers->read();
  if (reports.empty()) return true;
  const auto found = self.engine().resolve(model, version);
  if (!found.is_ok()) return false;
  const std::int64_t number = (*found)->number;
  (*found)->release();
  bool has_workers = false;
  for (const WorkerReport& report : reports) {
    if (report.model != model || report.version != number) continue;
    if (report.serves) return true;
    has_workers = true;
  }
  return !has_workers;
}

void register_workers(py::module_& module, py::class_<PyEngine>& engine) {
  py::class_<WorkerReport>(module, "WorkerReport")
      .def_readonly("model", &WorkerReport::model)
      .def_readonly("version", &WorkerReport::version)
      .def_readonly("instance", &WorkerReport::instance)
      .def_property_readonly(
          "state", [](const WorkerReport& self) { return std::string(worker_state_name(self.state)); })
      .def_readonly("pid", &WorkerReport::pid)
      .def_readonly("restarts", &WorkerReport::restarts)
      .def_readonly("serves", &WorkerReport::serves)
      .def_readonly("last_death", &WorkerReport::last_death);
  engine.def("use_workers", &use_workers, py::arg("refusals"), py::arg("command"), py::arg("environment"))
      .def("workers", [](PyEngine& self) { return self.workers->read(); });
}

}  // namespace fastserve::bind
