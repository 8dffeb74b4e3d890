// A device-shaped set of buffers and the requests whose rows are in it.
//
// Life: the arena of an instance hands out an empty batch -> the instance adds slots and gathers -> the backend runs it and
// calls finish() once -> every slot's response holds a BatchRef -> the last one released returns the batch to its arena.
// Thread: one owner at a time (puller, then backend, then finisher); only the reference count is shared.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "batch/request.h"
#include "memory/host_allocator.h"
#include "tensor/signature.h"

namespace fastserve {

// One request's place in a batch: rows [first_row, first_row + rows).
struct Slot {
  Request* request = nullptr;
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
};

// One tensor of a batch. Inputs are either gathered (own memory) or bound (borrowed from the only request: no copy).
struct BatchTensor {
  DType dtype = DType::kFp32;
  Shape shape;                      // with the rows that the device runs (>= the real rows when it pads)
  const std::byte* data = nullptr;  // a bound input is where the wire put it: not aligned to anything
  std::size_t bytes = 0;
  std::byte* own = nullptr;  // this batch's buffer, `capacity` bytes; nullptr until first needed
  std::size_t capacity = 0;
  bool present = true;  // false: an optional input that no request gave
};

// Bytes of an input that gather left where they are, in memory of the GPU that runs the batch.
struct DevicePart {
  std::size_t input = 0;
  std::size_t offset = 0;           // in the batch's tensor, whose host memory has nothing meaningful there
  std::span<const std::byte> data;  // an address of the device
};

class BatchArena;  // batch/arena.h

class Batch : public IntakeNode<Batch> {
 public:
  using Finish = void (*)(Batch&, Status);  // any thread, exactly once per run
  using Recycle = void (*)(Batch&);         // when the last BatchRef is gone; any thread

  Batch(const Signature& signature, HostAllocator& allocator);
  ~Batch();
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  const Signature& signature() const { return signature_; }
  std::span<const Slot> slots() const { return slots_; }
  std::int64_t rows() const { return rows_; }            // real rows
  std::int64_t run_rows() const { return run_rows_; }    // rows that the device runs: the bucket; >= rows()
  std::span<BatchTensor> inputs() { return inputs_; }    // signature order
  std::span<BatchTensor> outputs() { return outputs_; }  // signature order

  // --- puller
  void add(Request* request);  // appends its rows
  // Binds (single request that fills the bucket, or model without batching) or gathers; padding rows are zero.
  // `run_rows` is the bucket chosen for rows() (= rows() when the backend takes any number). `may_bind`: false for a backend
  // that reads only this batch's own memory. Inputs in memory of a GPU are copied to the host, or stay where they are when it is
  // the GPU `device` (BackendInstance::device): then they stand in device_parts().
  Status gather(std::int64_t run_rows, bool may_bind = true, int device = -1);
  // Instead: the rows stay where the requests have them (BackendInstance::reads_in_place); inputs() have a shape and no data.
  Status leave_in_place(std::int64_t run_rows);

  // --- backend
  std::span<const DevicePart> device_parts() const { return device_parts_; }
  // Memory for output i: at least `bytes`, owned by this batch, reused between runs; or the destination that the only request
  // named, when the output fits it. The backend writes there and sets shape; or, when the device's own memory outlives the batch's references, points data elsewhere.
  // nullptr when there is no memory: finish with RESOURCE_EXHAUSTED.
  std::byte* output_memory(std::size_t i, std::size_t bytes);
  // The same, never the request's destination, to which the answer is copied later.
  std::byte* own_output_memory(std::size_t i, std::size_t bytes) {
    return reserve(outputs_[i], bytes) ? outputs_[i].own : nullptr;
  }
  // Where the only request wants output i in memory of the GPU `device` (an address of it): a backend of that GPU may copy the real
  // rows there and name it in set_output. nullptr: nowhere there, or it does not fit; then the answer is copied when it is placed.
  std::byte* device_destination(std::size_t i, std::size_t bytes, int device) const;
  void set_output(std::size_t i, DType dtype, const Shape& shape, const std::byte* data, std::size_t bytes);
  // For backends that answer request by request (a Python model): instead of set_output, each slot's own tensors, rows first
  // where the model batches; all outputs of all slots that do not fail. `data` is kept by device_memory.
  void set_slot_output(std::size_t slot, std::size_t output, DType dtype, const Shape& shape,
                       std::span<const std::byte> data);
  // Of a slot that has outputs of its own: beside them.
  void set_slot_parameters(std::size_t slot, ResponseParameters parameters);
  // Only this slot's request fails; finish with OK for the others.
  void fail_slot(std::size_t slot, Status status);
  // A second call in one run is a backend's mistake: logged, nothing happens.
  void finish(Status status);

  // --- finisher
  // Fills every slot's response (outputs sliced by rows, or the error) without delivering it; INTERNAL when the backend's
  // outputs do not have the rows that the signature promises.
  void scatter(const Status& status);

  void clear();  // empty again, buffers kept

  Finish on_finish = nullptr;
  Recycle on_recycle = nullptr;
  void* instance = nullptr;      // the sched::Instance that runs it
  void* backend_slot = nullptr;  // the backend's own (an infer request, a lane)
  BatchArena* arena = nullptr;   // where it returns to
  // Keeps alive what set_output pointed elsewhere; set in start(), dropped when the batch is used again. A response that is
  // kept may outlive the BackendInstance: its batch's own memory does so by itself.
  std::shared_ptr<void> device_memory;
  std::uint64_t order = 0;  // batches of a version are numbered as they leave its queue, from 0 without a gap
  Nanos dequeued = 0;       // pulled
  Nanos run_start = 0;      // gathered, handed to the backend
  Nanos run_end = 0;        // finish() was called
  std::uint64_t copied_bytes = 0;  // by gather and scatter, on the host

  // Whether finish() was called since clear().
  bool finished() const { return finished_.load(std::memory_order_acquire); }

 private:
  friend class BatchRef;
  struct SlotOutput {
    bool present = false;
    OutputTensor tensor;
  };
  bool reserve(BatchTensor& tensor, std::size_t bytes);
  std::byte* destination(std::size_t output, std::size_t bytes) const;
  Status check_slot(std::size_t slot) const;
  void bind_input(std::size_t i);
  Status gather_input(std::size_t i, int device);
  Status copy_input(std::size_t i, int device);
  Status fetch(std::size_t i, const TensorView& view, std::size_t offset, int device);
  Status check_outputs();
  Status check_output(std::size_t i);
  Status walk_bytes_output(std::size_t i);
  OutputTensor slice(std::size_t output, std::size_t slot) const;

  const Signature& signature_;
  HostAllocator& allocator_;
  std::vector<Slot> slots_;
  std::vector<BatchTensor> inputs_;
  std::vector<BatchTensor> outputs_;
  std::int64_t rows_ = 0;
  std::int64_t run_rows_ = 0;
  std::vector<DevicePart> device_parts_;
  std::vector<SlotOutput> slot_outputs_;  // [slot][output]; empty: outputs_ are of the whole batch
  std::vector<Status> slot_faults_;       // [slot]; empty: none
  // [slot]; empty: none
  std::vector<std::shared_ptr<const ResponseParameters>> slot_parameters_;
  std::vector<std::size_t> bytes_ends_;      // [output][slot]: where a slot's rows of a kBytes output end
  std::atomic<bool> finished_{false};        // release in finish, acquire in finished
  std::atomic<std::int32_t> references_{0};  // acq_rel on release: the recycler sees every reader done
};

// Whether two requests may share a batch: same shapes behind the rows, the same optional inputs given. Always so when
// every dimension behind the rows is fixed and no input is optional (`uniform`).
bool uniform(const Signature& signature);
bool may_share(const Signature& signature, const Request& a, const Request& b);

}  // namespace fastserve
