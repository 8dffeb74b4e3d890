// A lane: a stream, an event, device buffers and one instantiated graph for each prepared size; one batch at a time.
//
// A batch is four calls of the driver on the lane's stream, none of which waits for the device: the real rows of each input to
// the device, the graph, the real rows of each output back, the event. Rows between the real ones and the prepared size are zero
// on the device: never what an earlier batch left there. Copies of several lanes overlap with each other's computing by
// themselves, because every lane has its own stream.
//
// States: free > starting (the starter's) > flying (published; the completer's) > landing (of whoever won it) > free.
// Thread: make, prepare and the destructor on loader threads; depart on the one that starts batches; query, due and land on the
// completer's (or the waiter's).
#pragma once

#include <cuda.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "backend/cuda_version.h"
#include "base/clock.h"
#include "batch/batch.h"
#include "queue/intake.h"

namespace fastserve {

class CudaLanes;

class CudaLane : public IntakeNode<CudaLane> {
 public:
  // Lane `number` of the version, at `place` of its set.
  CudaLane(CudaLanes& set, const CudaVersion& version, int number, int place);
  ~CudaLane();  // free. On a lost device its handles are left alone
  CudaLane(const CudaLane&) = delete;
  CudaLane& operator=(const CudaLane&) = delete;

  Status make();                      // RESOURCE_EXHAUSTED: out of device memory
  Status prepare(std::int64_t rows);  // captures one size; what cannot be captured is no error

  int place() const { return place_; }
  bool captured(std::int64_t rows) const;
  std::string why_not(std::int64_t rows) const;  // "" = it is captured

  void depart(Batch& batch);  // free; afterwards flying or, when nothing was started, free again and answered

  // --- flying
  CUresult query() const { return device_.driver().event_query(done_); }
  CUresult wait() const { return device_.driver().event_synchronize(done_); }
  bool overdue(Nanos now) const { return now > deadline_.load(std::memory_order_relaxed); }
  Nanos watchdog_ns() const { return version_.settings().watchdog_ns; }
  Nanos expected_end() const { return expected_end_; }
  std::string describe() const;  // of the batch, for the log
  // Whether the caller is the one to land it.
  bool claim_landing() {
    State flying = State::kFlying;
    return state_.compare_exchange_strong(flying, State::kLanding, std::memory_order_acq_rel);
  }
  void land();       // claimed; the event came
  void land_lost();  // claimed; the device is lost

 private:
  enum class State : std::uint8_t { kFree, kStarting, kFlying, kLanding };
  // An input on the device. Rows from `dirty_rows` on are zero.
  struct Input {
    DeviceAddress address = 0;
    std::size_t capacity = 0;
    std::int64_t dirty_rows = 0;
  };
  // One size.
  struct Prepared {
    std::int64_t rows = 0;
    CUgraphExec exec = nullptr;          // nullptr: through GraphModel::run
    std::string why_not;                 // then
    std::vector<Input> inputs;           // empty: those of the lane
    std::vector<DeviceAddress> outputs;  // likewise
    Nanos took_ns = 0;                   // smoothed; who lands it
  };

  // --- loader thread (cuda_lane_load.cc)
  Status allocate(std::size_t bytes, const std::string& what, DeviceAddress& out);
  Status allocate_tensors(bool outputs, bool owned_by_model, std::vector<DeviceAddress>& out);
  Status capture(Prepared& into);
  Status instantiate(const Captured& captured, Prepared& into);
  Status check_addresses(const Captured& captured) const;

  // --- starter
  Prepared& prepared_for(std::int64_t rows);
  Status check(CUresult result, const char* what) const;
  Status launch(Batch& batch);
  Status run_uncaptured(Batch& batch);
  Status run_model(Batch& batch, std::vector<DeviceTensor>& outputs);
  Status make_room(Input& input, std::size_t bytes, const std::string& name);
  Status copy_in(Batch& batch, std::vector<Input>& inputs);
  Status copy_in_place(Batch& batch, std::size_t i, DeviceAddress to);
  Status to_device(DeviceAddress to, const std::byte* from, std::size_t bytes);
  Status from_device(DeviceAddress to, std::span<const std::byte> from);
  Status to_host(std::byte* to, DeviceAddress from, std::size_t bytes);
  Status copy_output(Batch& batch, std::size_t i, DeviceAddress from);
  Status clear_padding(Batch& batch, std::size_t i, Input& input);
  Status reserve_outputs(Batch& batch);
  Status reserve_output(Batch& batch, std::size_t i, const Shape& shape, std::size_t bytes);
  Status copy_out(Batch& batch, const std::vector<DeviceAddress>& outputs);
  Status copy_out(Batch& batch, const std::vector<DeviceTensor>& outputs);
  Status check_output(const Batch& batch, std::size_t i, const DeviceTensor& tensor) const;
  void publish();
  void wait_and_finish(Status status);
  void finish(Status status);
  void finish_lost();

  CudaLanes& set_;
  const CudaVersion& version_;
  CudaDevice& device_;
  const int place_;
  CUstream stream_ = nullptr;
  CUevent done_ = nullptr;
  LaneMemory memory_;
  std::vector<DeviceAddress> own_;  // everything that is freed at the end
  std::vector<Input> inputs_;       // of run(), and of graphs that use the lane's memory
  std::vector<Prepared> prepared_;  // ascending; does not change after prepare
  Prepared any_;                    // of a model of which nothing is captured

  // The batch under way.
  std::atomic<State> state_{State::kFree};
  Batch* batch_ = nullptr;
  Prepared* running_ = nullptr;
  Status status_;  // of the start: a batch that failed half-way lands when what was started is through
  Nanos started_ = 0;
  Nanos expected_end_ = 0;
  std::atomic<Nanos> deadline_{kNever};  // relaxed; read by the watchdog of blocking lanes
};

}  // namespace fastserve
