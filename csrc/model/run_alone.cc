#include "model/run_alone.h"

#include <atomic>

#include "batch/served_version.h"

namespace fastserve {
namespace {

// Where the backend reports the end of a run, on whatever thread.
struct Run {
  std::atomic<bool> done{false};  // seq_cst, partner of the bell
  Status status;
};

void on_finish(Batch& batch, Status status) {
  Run& run = *static_cast<Run*>(batch.instance);
  run.status = std::move(status);
  run.done.store(true, std::memory_order_seq_cst);  // the last touch of `run`, which is on the loader's stack
  ServedVersion::idle.ring_all();
}

}  // namespace

Status run_alone(Instance& instance, Request& request, Nanos& took) {
  Batch& batch = *instance.arena().acquire();
  BatchRef hold(&batch);
  batch.add(&request);
  FS_RETURN_IF_ERROR(batch.gather(instance.run_rows(request.rows), instance.backend().binds_inputs()));
  Run run;
  batch.instance = &run;
  batch.on_finish = &on_finish;
  const Nanos begin = monotonic_now();
  instance.backend().start(batch);
  for (;;) {
    const std::uint32_t ticket = ServedVersion::idle.ticket();
    if (run.done.load(std::memory_order_seq_cst)) break;
    ServedVersion::idle.wait(ticket, kNever);
  }
  took = monotonic_now() - begin;
  batch.scatter(run.status);
  Status status = request.response.status;
  request.response.release();
  return status;
}

}  // namespace fastserve
