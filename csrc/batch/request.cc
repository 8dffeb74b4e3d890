#include "batch/request.h"

#include "batch/batch.h"
#include "batch/served_version.h"

namespace fastserve {

BatchRef::BatchRef(Batch* batch) : batch_(batch) {
  batch->references_.fetch_add(
      1, std::memory_order_relaxed);  // the caller already has the right to use the batch
}

void BatchRef::release() {
  Batch* batch = std::exchange(batch_, nullptr);
  if (batch == nullptr) return;
  if (batch->references_.fetch_sub(1, std::memory_order_acq_rel) == 1) batch->on_recycle(*batch);
}

void Request::cancel() {
  cancelled.store(true, std::memory_order_release);
  if (parts != nullptr) return parts->cancel();
  if (version != nullptr) version->notice_cancel();
}

void Request::reset() {
  response.release();
  response.status = Status::ok();
  response.final = true;
  response.misplaced = false;
  if (version != nullptr) std::exchange(version, nullptr)->release();
  model_name = model_version = id = {};
  inputs.clear();
  requested_outputs.clear();
  parameters.clear();
  shared_inputs.clear();
  inputs_may_change = false;
  complete = nullptr;
  keep_alive.clear();
  regions.clear();
  priority = 0;
  deadline = expires = kNever;
  queue_timeout_ns = 0;
  owner = nullptr;
  owner_tag = 0;
  message.clear();
  scratch.reset();
  rows = 1;
  input_order.clear();
  output_order.clear();
  waiting = {};
  times = {};
  tap = nullptr;
  fingerprint = 0;
  is_part = false;
  parts.reset();
  cancelled.store(false, std::memory_order_relaxed);
}

}  // namespace fastserve
