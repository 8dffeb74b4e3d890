#include "model/model_version.h"

#include <sched.h>
#include <unistd.h>

#include <cassert>
#include <stdexcept>

#include "backend/guard.h"
#include "base/log.h"
#include "model/warm_up.h"
#include "model/warm_up_sample.h"

namespace fastserve {
namespace {

// The backend's promise about shapes, on which gather and scatter rely.
Status check_signature(const Signature& signature) {
  if (signature.outputs.empty()) return internal_error("the backend reports no outputs");
  if (!signature.batches()) return Status::ok();
  for (const auto* specs : {&signature.inputs, &signature.outputs}) {
    for (const TensorSpec& spec : *specs) {
      if (!spec.shape.empty() && spec.shape[0] == -1) continue;
      return internal_error("the backend reports shape " + spec.shape.str() + " for '" + spec.name +
                            "', want -1 in front, because it batches");
    }
  }
  return Status::ok();
}

Status check_cpus(const std::vector<int>& cpus, const std::string& field) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(::getpid(), sizeof allowed, &allowed) != 0) return Status::ok();
  for (const int cpu : cpus) {
    if (cpu >= 0 && cpu < CPU_SETSIZE && CPU_ISSET(cpu, &allowed)) continue;
    return invalid_argument(field + ".cpus: got " + std::to_string(cpu) +
                            ", want CPUs that this process may use (" + std::to_string(CPU_COUNT(&allowed)) +
                            " of them)");
  }
  return Status::ok();
}

Status check_request_rows(std::int64_t rows, const Signature& signature) {
  constexpr std::int64_t kMostParts = 1024;  // of one request; each takes about a kilobyte
  if (rows == 0) return Status::ok();
  const std::string got = "max_request_rows: got " + std::to_string(rows) + ", want ";
  if (!signature.batches()) return invalid_argument(got + "0, because the model does not batch");
  const std::int64_t most = kMaxElements / kMostParts < signature.max_batch_rows
                                ? kMaxElements
                                : kMostParts * signature.max_batch_rows;
  if (rows >= signature.max_batch_rows && rows <= most) return Status::ok();
  return invalid_argument(got + "0 or " + std::to_string(signature.max_batch_rows) + " to " +
                          std::to_string(most) + " (" + std::to_string(kMostParts) + " batches)");
}

LoadSpec with_stop(LoadSpec spec, const std::stop_source& given_up) {
  spec.given_up = given_up.get_token();
  return spec;
}

}  // namespace

ModelVersion::ModelVersion(const LoadSpec& spec, ExpiryTimer& timer, RateLimiter* limiter)
    : ServedVersion(spec.model, spec.version),
      spec_(with_stop(spec, given_up_)),
      timer_(timer),
      limiter_(limiter) {
  labels = spec.labels;
}

ModelVersion::~ModelVersion() { assert(instances_.all().empty() && model_ == nullptr); }

ModelVersion::View ModelVersion::view() const {
  const std::lock_guard lock(view_mutex_);
  return view_;
}

bool ModelVersion::described() const {
  const std::lock_guard lock(view_mutex_);
  return described_;
}

void ModelVersion::enter(VersionState next, std::string reason) {
  const std::lock_guard lock(view_mutex_);
  assert(transition_allowed(view_.state, next));
  view_.state = next;
  view_.reason = std::move(reason);
  if (next == VersionState::kWarming) described_ = true;
  if (next == VersionState::kReady) view_.progress = 1;
}

void ModelVersion::fail(const Status& status) { enter(VersionState::kFailed, status.message()); }

// The caller's progress, and what status() shows meanwhile. The steps of a load are where one that was given up can be ended.
Progress ModelVersion::observed(const Progress& progress) {
  return [this, progress](double fraction, std::string_view what) {
    if (given_up_.stop_requested()) throw std::runtime_error("the load was given up");
    {
      const std::lock_guard lock(view_mutex_);
      view_.progress = fraction;
      view_.reason = what;
    }
    if (progress) progress(fraction, what);
  };
}

Status ModelVersion::load(Backend& backend, const Progress& progress) {
  enter(VersionState::kLoading);
  const std::string what = "backend '" + std::string(backend.name()) + "'";
  Status status = guarded(what, [&] { return load_contents(backend, observed(progress)); });
  if (status.is_ok()) return status;
  tear_down();
  fail(status);
  return status;
}

Status ModelVersion::load_contents(Backend& backend, const Progress& progress) {
  FS_ASSIGN_OR_RETURN(auto model, backend.load(spec_, progress));
  FS_RETURN_IF_ERROR(adopt(std::move(model)));
  FS_RETURN_IF_ERROR(make_instances());
  enter(VersionState::kWarming);
  if (model_->takes_made_up_requests()) {
    FS_RETURN_IF_ERROR(warm_up(signature, !model_->pads(), buckets_, instances_.all(), progress));
  }
  model_->warmed(buckets_);
  FS_RETURN_IF_ERROR(run_warm_up_samples(signature, name, spec_.warm_up, instances_.all(), progress));
  queue_->prepare(buckets_, model_->pads());
  return Status::ok();
}

Status ModelVersion::adopt(std::unique_ptr<LoadedModel> model) {
  model_ = std::move(model);
  signature = model_->signature();
  FS_RETURN_IF_ERROR(check_signature(signature));
  FS_RETURN_IF_ERROR(check_request_rows(spec_.max_request_rows, signature));
  signature.max_request_rows = spec_.max_request_rows;
  platform_ = model_->platform();
  buckets_.assign(model_->buckets().begin(), model_->buckets().end());
  properties_ = model_->properties();
  instance_count_ = model_->instance_count();
  queue_ = std::make_unique<ModelQueue>(*this, spec_.limits, timer_, spec_.queue);
  if (spec_.queue.preserve_ordering) order_ = std::make_unique<OrderGate>(&Instance::send_in_turn);
  return Status::ok();
}

Status ModelVersion::make_instances() {
  const std::vector<std::int64_t> padded = model_->pads() ? buckets_ : std::vector<std::int64_t>{};
  for (int i = 0; i < instance_count_; ++i) {
    FS_ASSIGN_OR_RETURN(auto setup, setup_of(i));
    FS_ASSIGN_OR_RETURN(auto backend, model_->make_instance(i));
    setup.allocator = model_->allocator(i);
    instances_.add(std::make_unique<Instance>(*queue_, std::move(backend), padded, plain_host_allocator(),
                                              std::move(setup)));
  }
  return instances_.all().empty() ? internal_error("the backend reports 0 instances") : Status::ok();
}

// By the group that has the instance; what the backend makes beyond the groups' counts belongs to the last one.
Result<InstanceSetup> ModelVersion::setup_of(int index) {
  InstanceSetup setup;
  setup.order = order_.get();
  std::size_t at = 0;
  int place = index;
  while (at + 1 < spec_.groups.size() && place >= spec_.groups[at].count) place -= spec_.groups[at++].count;
  setup.name = name + "_" + std::to_string(at) + "_" + std::to_string(place);
  const std::span<const int> proposed = model_->cpus(index);
  setup.cpus.assign(proposed.begin(), proposed.end());
  if (spec_.groups.empty()) return setup;
  const InstanceGroup& group = spec_.groups[at];
  const std::string field = "instance_group[" + std::to_string(at) + "]";
  if (!group.name.empty()) setup.name = group.name + "_" + std::to_string(place);
  FS_RETURN_IF_ERROR(check_cpus(group.cpus, field));
  if (!group.cpus.empty()) setup.cpus = group.cpus;
  if (limiter_ == nullptr) return setup;
  FS_ASSIGN_OR_RETURN(setup.seat, limiter_->join(group, field));
  return setup;
}

Status ModelVersion::start() {
  instances_.open(*queue_);
  enter(VersionState::kReady);
  return Status::ok();
}

void ModelVersion::drain_begin() {
  {
    const std::lock_guard lock(view_mutex_);  // the engine's drain and an unload may come together
    if (view_.state == VersionState::kReady) view_.state = VersionState::kDraining;
  }
  begin_drain();
}

bool ModelVersion::wait_unused(Nanos until) {
  for (;;) {
    const std::uint32_t ticket = idle.ticket();
    // Whoever answers counts it after the delivery: by then the owner may have given its handle back.
    if (handles() == 0 && unanswered() == 0) return true;
    if (until != kNever && monotonic_now() >= until) return false;
    idle.wait(ticket, until);
  }
}

bool ModelVersion::wait_answered(Nanos until) {
  for (;;) {
    const std::uint32_t ticket = idle.ticket();
    if (unanswered() == 0) return true;
    if (until != kNever && monotonic_now() >= until) return false;
    idle.wait(ticket, until);
  }
}

void ModelVersion::refuse_waiting() {
  queue_->refuse_waiting(unavailable("model '" + name + "' is being unloaded"));
}

void ModelVersion::destroy() {
  assert(handles() == 0 && unanswered() == 0 &&
         queue_->waiting() == 0);  // every submitted request was answered
  tear_down();
  enter(VersionState::kUnloaded);
}

// The queue stays: a submitter with an old table may still ring it.
void ModelVersion::tear_down() {
  if (queue_ != nullptr) queue_->leave_timer();
  instances_.stop();
  const Status status = guarded("model '" + name + "'", [&] {
    instances_.clear();
    model_.reset();
    return Status::ok();
  });
  if (!status.is_ok()) log(LogLevel::kError, "destroying: " + status.message());
}

// A model cheaper than a wake runs here and now. A device that only has to be told gets a request that comes alone; several
// are gathered into one tensor by copying, which is for an instance's own thread. The first instance with nothing to do takes
// it, so with little load it is the same one each time, whose caches are warm.
bool ModelVersion::start_here() {
  constexpr Nanos kCheapRunNs = 10 * kMicrosecond;
  constexpr Nanos kMostNs = 50 * kMicrosecond;
  const std::int64_t waiting = queue_->waiting();
  if (waiting == 0) return true;
  const std::int64_t rows = std::min(waiting, std::max<std::int64_t>(signature.max_batch_rows, 1));
  Instance& first = *instances_.all().front();
  const Nanos expected = first.cost().expected_ns(first.run_rows(rows));
  const bool cheap = expected != 0 && expected <= kCheapRunNs;  // 0: nothing learned yet
  if (!cheap && (waiting != 1 || !first.starts_promptly())) return false;
  Instance* instance = claim_idle();
  if (instance == nullptr) return false;
  cheap ? instance->run_claimed_until(monotonic_now() + kMostNs) : instance->run_claimed();
  return true;
}

void ModelVersion::notice_cancel() { queue_->notice_cancel(); }

}  // namespace fastserve
