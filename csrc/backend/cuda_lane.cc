#include "backend/cuda_lane.h"

#include <algorithm>
#include <string>
#include <utility>

#include "backend/cuda_fault.h"
#include "backend/cuda_lanes.h"
#include "backend/guard.h"
#include "memory/region.h"

namespace fastserve {
namespace {

// What a device that is lost may still read and write: the batch's memory and the regions of its requests.
struct KeptBatch {
  explicit KeptBatch(Batch& batch) : hold(&batch) {
    for (const Slot& slot : batch.slots()) {
      const auto& regions = slot.request->regions;
      regions_.insert(regions_.end(), regions.begin(), regions.end());
      const auto& others = slot.request->keep_alive;
      regions_.insert(regions_.end(), others.begin(), others.end());
    }
  }
  BatchRef hold;
  std::vector<std::shared_ptr<void>> regions_;
};

constexpr std::size_t kMostIds = 8;

}  // namespace

void CudaLane::depart(Batch& batch) {
  state_.store(State::kStarting, std::memory_order_relaxed);
  batch_ = &batch;
  status_ = Status::ok();
  running_ = &prepared_for(batch.run_rows());
  started_ = monotonic_now();
  Status started = running_->exec != nullptr ? launch(batch) : run_uncaptured(batch);
  if (device_.lost()) return finish_lost();
  if (!started.is_ok()) device_.counts().failed_batches.fetch_add(1, std::memory_order_relaxed);
  // A batch that failed half-way is answered when what was started is through: until then the device uses its memory.
  Status recorded = check(device_.driver().event_record(done_, stream_), "cuEventRecord");
  if (device_.lost()) return finish_lost();
  if (!recorded.is_ok()) return wait_and_finish(std::move(started.is_ok() ? recorded : started));
  status_ = std::move(started);
  publish();
}

void CudaLane::publish() {
  const Nanos watchdog = version_.settings().watchdog_ns;
  expected_end_ = started_ + running_->took_ns;
  deadline_.store(watchdog == 0 ? kNever : started_ + watchdog, std::memory_order_relaxed);
  state_.store(State::kFlying, std::memory_order_release);
  set_.add(*this);
}

void CudaLane::land() {
  const Nanos took = monotonic_now() - started_;
  running_->took_ns = running_->took_ns == 0 ? took : (running_->took_ns * 7 + took) / 8;
  finish(std::move(status_));
}

void CudaLane::land_lost() { finish_lost(); }

// The event cannot be had: the same error again, or another one, on a stream that only has to be waited for is no accident.
void CudaLane::wait_and_finish(Status status) {
  const CUresult waited = device_.driver().stream_synchronize(stream_);
  if (waited == CUDA_SUCCESS) return finish(std::move(status));
  device_.lose(to_status(waited, "cuStreamSynchronize"), describe());
  finish_lost();
}

// The lane is free before the batch is finished: finish() may wake the thread that starts the next one.
void CudaLane::finish(Status status) {
  Batch* const batch = std::exchange(batch_, nullptr);
  deadline_.store(kNever, std::memory_order_relaxed);
  state_.store(State::kFree, std::memory_order_release);
  set_.give_back(*this);
  batch->finish(std::move(status));
}

void CudaLane::finish_lost() {
  keep_for_ever(std::make_shared<KeptBatch>(*batch_));
  finish(device_.lost_status());
}

std::string CudaLane::describe() const {
  std::string text = version_.text() + ", " + std::to_string(batch_->rows()) + " rows run as " +
                     std::to_string(batch_->run_rows()) + ", requests ";
  std::size_t told = 0;
  for (const Slot& slot : batch_->slots()) {
    if (told++ != 0) text += ", ";
    if (told > kMostIds) return text + "and " + std::to_string(batch_->slots().size() - kMostIds) + " more";
    text += slot.request->id.empty() ? "(no id)" : "'" + shown(slot.request->id) + "'";
  }
  return text;
}

CudaLane::Prepared& CudaLane::prepared_for(std::int64_t rows) {
  const auto found = std::ranges::find(prepared_, rows, &Prepared::rows);
  return found == prepared_.end() ? any_ : *found;
}

Status CudaLane::check(CUresult result, const char* what) const {
  if (result == CUDA_SUCCESS) return Status::ok();
  return device_.check(result, what, batch_ != nullptr ? describe() : version_.text());
}

Status CudaLane::launch(Batch& batch) {
  FS_RETURN_IF_ERROR(reserve_outputs(batch));
  FS_RETURN_IF_ERROR(copy_in(batch, running_->inputs.empty() ? inputs_ : running_->inputs));
  FS_RETURN_IF_ERROR(check(device_.driver().graph_launch(running_->exec, stream_), "cuGraphLaunch"));
  device_.counts().graph_batches.fetch_add(1, std::memory_order_relaxed);
  return copy_out(batch, running_->outputs.empty() ? memory_.outputs : running_->outputs);
}

Status CudaLane::run_uncaptured(Batch& batch) {
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const auto bytes = batch.inputs()[i].shape.byte_count(batch.inputs()[i].dtype);
    FS_RETURN_IF_ERROR(make_room(inputs_[i], bytes.value_or(0), version_.signature().inputs[i].name));
  }
  FS_RETURN_IF_ERROR(copy_in(batch, inputs_));
  device_.counts().fallback_batches.fetch_add(1, std::memory_order_relaxed);
  std::vector<DeviceTensor> outputs;
  FS_RETURN_IF_ERROR(run_model(batch, outputs));
  if (!outputs.empty()) return copy_out(batch, outputs);
  FS_RETURN_IF_ERROR(reserve_outputs(batch));
  return copy_out(batch, memory_.outputs);
}

Status CudaLane::run_model(Batch& batch, std::vector<DeviceTensor>& outputs) {
  std::vector<DeviceTensor> inputs;
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const BatchTensor& tensor = batch.inputs()[i];
    inputs.push_back({inputs_[i].address, tensor.shape, tensor.shape.byte_count(tensor.dtype).value_or(0)});
  }
  auto ran =
      guarded(version_.text(), [&] { return version_.graph().run(memory_, batch.run_rows(), inputs); });
  if (ran.is_ok()) {
    outputs = std::move(ran).value();
    return Status::ok();
  }
  // The words are the model's; whether it took the device with it, the driver knows.
  const CUresult state = device_.driver().stream_query(stream_);
  if (state != CUDA_ERROR_NOT_READY) FS_RETURN_IF_ERROR(check(state, "cuStreamQuery"));
  return ran.status();
}

}  // namespace fastserve
