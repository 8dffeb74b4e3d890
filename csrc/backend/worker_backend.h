// Backends whose models run in worker processes: "python", "onnxruntime", "pytorch". One process per instance; what a kind is
// knows only the Python side (python/fastserve/worker).
//
// Parameters of a model that are read here: initialize_timeout_s, execute_timeout_s, finalize_timeout_s (seconds, 0 = none),
// worker_threads (CPU threads of each process; 0 = its share of the budget). All go to the model as well.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/worker_supervisor.h"

namespace fastserve {

// The workers of an engine, for metrics. Thread: any.
class WorkerTable {
 public:
  void add(const WorkerSupervisor* worker);
  void remove(const WorkerSupervisor* worker);
  std::vector<WorkerReport> read() const;

 private:
  mutable std::mutex mutex_;
  std::vector<const WorkerSupervisor*> workers_;
};

struct WorkerBackendSetup {
  std::string kind;
  WorkerCommand command;
  std::string refusal;  // not "": no model of this kind is loaded, and this is why
  std::shared_ptr<WorkerTable> table;
  MakeCallConnection calls;
};

std::unique_ptr<Backend> make_worker_backend(WorkerBackendSetup setup);

}  // namespace fastserve
