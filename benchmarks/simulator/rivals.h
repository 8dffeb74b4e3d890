// The rivals' rules, written anew from their published descriptions.
#pragma once

#include <deque>

#include "simulator/device.h"
#include "simulator/scheduler.h"

namespace simulator {

// No batching: one request at a time, in order.
std::unique_ptr<Scheduler> no_batching();

// Triton (user guide, "Batchers"): an idle instance takes the largest preferred size that what waits can form; without
// one it waits until the oldest has been delayed by max_queue_delay, then takes all that fits. Without preferred sizes:
// max_batch_size counts as preferred.
std::unique_ptr<Scheduler> triton(const Device& device, Nanos max_queue_delay_ns,
                                  std::vector<std::int64_t> preferred);

// TensorFlow Serving (Batching Guide, BasicBatchScheduler): tasks fill the newest batch until max_batch_size or
// batch_timeout_micros since its first task; closed batches are taken in order by num_batch_threads threads; padded to
// allowed_batch_sizes; a task is refused when max_enqueued_batches are full.
std::unique_ptr<Scheduler> tf_serving(const Device& device, Nanos batch_timeout_ns,
                                      std::size_t max_enqueued_batches);

// BentoML's dispatcher (marshal/dispatcher.py): looks every millisecond; duration = a n + b by least squares over the last 50
// batches, refitted at most every 5 s; with n > 1 and w0 + a n + b >= max_latency the oldest is cancelled; waits one more
// tick while n < max_batch and n (wn + dt + a) <= 0.95 x the average wait; one batch in flight for each worker, whose requests
// come round robin.
std::unique_ptr<Scheduler> bentoml(const Device& device, int workers, Nanos max_latency_ns);

}  // namespace simulator
