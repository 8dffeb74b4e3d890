#include "backend/worker_backend.h"

#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <stop_token>
#include <utility>

#include "base/cpu_budget.h"

namespace fastserve {
namespace {

class WorkerInstance final : public BackendInstance {
 public:
  WorkerInstance(WorkerSupervisor& worker, bool batches) : worker_(worker), batches_(batches) {}

  // One that the process works on, and the next one, so that it need not sleep in between.
  int depth() const override { return 2; }
  // Without batches every request is a message of its own, and several on their way share the wakes. (With batches they would only
  // make those smaller.)
  int depth_of_short_batches() const override { return batches_ ? depth() : kUnbatchedDepth; }
  void start(Batch& batch) override { worker_.submit(batch); }
  bool binds_inputs() const override { return false; }
  bool starts_promptly() const override { return true; }

 private:
  static constexpr int kUnbatchedDepth = 8;
  WorkerSupervisor& worker_;
  const bool batches_;
};

class WorkerModel final : public LoadedModel {
 public:
  WorkerModel(std::shared_ptr<WorkerPlan> plan, std::shared_ptr<WorkerTable> table)
      : plan_(std::move(plan)), table_(std::move(table)) {}

  ~WorkerModel() override {
    for (const auto& worker : workers_) {
      table_->remove(worker.get());
      worker->begin_stop();  // all at once; the destructors wait
    }
  }

  Status start(int count, int threads);

  const Signature& signature() const override { return description_.signature; }
  int instance_count() const override { return static_cast<int>(workers_.size()); }
  std::span<const std::int64_t> buckets() const override { return plan_->spec.allowed_rows; }
  Result<std::unique_ptr<BackendInstance>> make_instance(int index) override {
    return std::unique_ptr<BackendInstance>(std::make_unique<WorkerInstance>(
        *workers_[static_cast<std::size_t>(index)], description_.signature.max_batch_rows > 0));
  }
  std::shared_ptr<HostAllocator> allocator(int /*instance*/) override { return plan_->memory; }
  std::map<std::string, std::string> properties() const override { return description_.properties; }
  std::string_view platform() const override { return description_.platform; }
  bool takes_made_up_requests() const override { return plan_->spec.backend != "python"; }

 private:
  const std::shared_ptr<WorkerPlan> plan_;
  const std::shared_ptr<WorkerTable> table_;
  std::vector<std::unique_ptr<WorkerSupervisor>> workers_;
  WorkerDescription description_;
};

// As schedulers name instances (model/model_version.cc).
std::string instance_name(const LoadSpec& spec, int index) {
  std::size_t at = 0;
  int place = index;
  while (at + 1 < spec.groups.size() && place >= spec.groups[at].count) place -= spec.groups[at++].count;
  if (at < spec.groups.size() && !spec.groups[at].name.empty())
    return spec.groups[at].name + "_" + std::to_string(place);
  return spec.model + "_" + std::to_string(at) + "_" + std::to_string(place);
}

// All processes start at once, and the slowest decides.
Status WorkerModel::start(int count, int threads) {
  workers_.reserve(static_cast<std::size_t>(count));  // siblings look at it while it is filled: nothing moves
  for (int i = 0; i < count; ++i) {
    const WorkerSpec worker{i, instance_name(plan_->spec, i), threads};
    workers_.push_back(std::make_unique<WorkerSupervisor>(plan_, worker, workers_));
    table_->add(workers_.back().get());
  }
  const std::stop_callback ends(plan_->spec.given_up, [this] {
    for (const auto& worker : workers_) worker->give_up();
  });
  for (int i = 0; i < count; ++i) {
    FS_ASSIGN_OR_RETURN(auto described, workers_[static_cast<std::size_t>(i)]->wait_described());
    if (i == 0) description_ = std::move(described);
  }
  description_.properties.emplace("device", "CPU");
  description_.properties.emplace("worker_processes", std::to_string(count));
  if (description_.platform.empty()) description_.platform = plan_->spec.backend;
  return Status::ok();
}

Result<int> worker_threads(const LoadSpec& spec, int count) {
  constexpr int kMost = 4096;
  const auto given = spec.parameters.find("worker_threads");
  int threads = 0;
  if (given != spec.parameters.end()) {
    const std::string& text = given->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), threads);
    if (error != std::errc() || end != text.data() + text.size() || threads < 0 || threads > kMost) {
      return invalid_argument("parameters[\"worker_threads\"]: got \"" + text +
                              "\", want a whole number from 0 (a share of --cpu-threads) to 4096");
    }
  }
  return threads != 0 ? threads : std::max(CpuBudget::process().threads() / count, 1);
}

class WorkerBackend final : public Backend {
 public:
  explicit WorkerBackend(WorkerBackendSetup setup)
      : setup_(std::move(setup)), policy_(::sched_getscheduler(0)), nice_(::getpriority(PRIO_PROCESS, 0)) {}
  std::string_view name() const override { return setup_.kind; }

  Result<std::unique_ptr<LoadedModel>> load(const LoadSpec& spec, const Progress& progress) override {
    if (!setup_.refusal.empty()) return Status(Code::kFailedPrecondition, setup_.refusal);
    if (spec.instance_count < 0 || spec.instance_count > kMostInstances) {
      return invalid_argument("instance_count: got " + std::to_string(spec.instance_count) + ", want 0 to " +
                              std::to_string(kMostInstances) + ": each is a process");
    }
    const int count = std::max(spec.instance_count, 1);
    auto plan = std::make_shared<WorkerPlan>();
    plan->spec = spec;
    plan->command = setup_.command;
    plan->calls = setup_.calls;
    plan->policy = policy_;
    plan->nice = nice_;
    plan->memory = std::make_shared<WorkerMemory>();
    FS_ASSIGN_OR_RETURN(plan->limits, read_worker_limits(spec.parameters));
    FS_ASSIGN_OR_RETURN(const int threads, worker_threads(spec, count));
    progress(0, "starting " + std::to_string(count) + (count == 1 ? " worker" : " workers"));
    auto model = std::make_unique<WorkerModel>(std::move(plan), setup_.table);
    FS_RETURN_IF_ERROR(model->start(count, threads));
    return std::unique_ptr<LoadedModel>(std::move(model));
  }

 private:
  static constexpr int kMostInstances = 256;
  const WorkerBackendSetup setup_;
  const int policy_, nice_;  // of whoever registered it: whoever loads may have lowered its own
};

}  // namespace

void WorkerTable::add(const WorkerSupervisor* worker) {
  const std::lock_guard lock(mutex_);
  workers_.push_back(worker);
}

void WorkerTable::remove(const WorkerSupervisor* worker) {
  const std::lock_guard lock(mutex_);
  std::erase(workers_, worker);
}

std::vector<WorkerReport> WorkerTable::read() const {
  const std::lock_guard lock(mutex_);
  std::vector<WorkerReport> out;
  for (const WorkerSupervisor* worker : workers_) out.push_back(worker->report());
  return out;
}

std::unique_ptr<Backend> make_worker_backend(WorkerBackendSetup setup) {
  return std::make_unique<WorkerBackend>(std::move(setup));
}

}  // namespace fastserve
