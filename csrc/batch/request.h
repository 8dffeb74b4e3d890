// The one neutral request type. A front end (or the embedding binding) fills it, the engine runs it, and its response goes
// to the CompletionQueue of its owner.
//
// Ownership: the submitter owns the Request until Engine::submit accepts it, the engine until the final Response was
// delivered, the submitter again from then on (it recycles it with reset()). Every accepted request gets exactly one
// response with final = true; a streaming model may deliver others before it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "batch/answer_tap.h"
#include "memory/byte_buffer.h"
#include "memory/scratch.h"
#include "queue/completion_queue.h"
#include "queue/intake.h"
#include "tensor/tensor.h"

namespace fastserve {

class Batch;          // batch/batch.h
class Region;         // memory/region.h
class ServedVersion;  // batch/served_version.h
struct Request;

// A request or tensor parameter of OIP: bool, int64, uint64, double or string (views into the request's message).
struct Parameter {
  std::string_view name;
  std::variant<bool, std::int64_t, std::uint64_t, double, std::string_view> value;
};

// What a model says beside its outputs (Triton's response parameters); its own memory.
struct ResponseParameter {
  std::string name;
  std::variant<bool, std::int64_t, std::uint64_t, double, std::string> value;
};
using ResponseParameters = std::vector<ResponseParameter>;

// A place in a registered region of shared memory, as a request names it; submit finds the memory (Triton's shared-memory
// extension: shared_memory_region, shared_memory_offset, shared_memory_byte_size).
struct SharedPlace {
  std::string_view region;  // "" = none
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};
struct SharedInput {
  std::size_t input = 0;  // of Request::inputs, whose data stands there
  SharedPlace place;
};

// What the client asked to get back. `binary` and `classification` concern only the encoder of the front end.
struct RequestedOutput {
  std::string_view name;
  std::int64_t classification = 0;  // 0 = no
  bool binary = false;              // REST: binary tensor data instead of JSON
  SharedPlace shared{};             // where the answer is to be, by name
  // The same as memory: of whoever submits, or found by submit; kept until the final response. Too small: the request fails
  // with INVALID_ARGUMENT. nullptr: the answer may be anywhere.
  std::span<std::byte> destination{};
  DeviceMemory* on_device = nullptr;  // where set, `destination` is an address in this memory of a GPU
};

struct OutputTensor {
  int index = 0;  // position in the signature's outputs
  DType dtype = DType::kFp32;
  Shape shape;  // this request's rows
  std::span<const std::byte> data;
  bool placed = false;  // it stands in the destination that was asked for
};

// Counted right to read a batch's buffers; the last one released returns the batch to its arena. (batch/batch.h)
class BatchRef {
 public:
  BatchRef() = default;
  explicit BatchRef(Batch* batch);  // counts one up
  BatchRef(BatchRef&& other) noexcept : batch_(std::exchange(other.batch_, nullptr)) {}
  BatchRef& operator=(BatchRef&& other) noexcept {
    std::swap(batch_, other.batch_);
    return *this;
  }
  ~BatchRef() { release(); }
  void release();
  Batch* get() const { return batch_; }

 private:
  Batch* batch_ = nullptr;
};

// One answer. Outputs are in the order the client asked for (the signature's order when it named none) and point into the
// batch that `batch` keeps; they are gone after release().
struct Response : IntakeNode<Response> {
  Request* request = nullptr;
  Status status;
  bool final = true;
  // place_outputs refused it: memory that its client gave is too small or went away; nobody else is to blame.
  bool misplaced = false;
  std::vector<OutputTensor> outputs;                     // empty unless status is OK
  std::shared_ptr<const ResponseParameters> parameters;  // nullptr: the model said none
  BatchRef batch;

  void release() {
    outputs.clear();
    parameters.reset();
    batch.release();
  }
};

// Stage times of one request (CLOCK_MONOTONIC); 0 = did not happen.
struct StageTimes {
  Nanos received = 0;   // by the front end: its first bytes
  Nanos complete = 0;   // its last bytes, before decoding
  Nanos enqueued = 0;   // accepted by submit
  Nanos dequeued = 0;   // pulled into a batch
  Nanos run_start = 0;  // inputs gathered, device started
  Nanos run_end = 0;    // device finished
  Nanos delivered = 0;  // response handed over
};

// Where a waiting request is in its PendingSet (batch/pending_set.h), which alone touches this.
struct Waiting {
  static constexpr std::size_t kNotInHeap = static_cast<std::size_t>(-1);
  Request* previous = nullptr;  // arrival order within the level
  Request* next = nullptr;
  std::size_t heap_at = kNotInHeap;
  std::size_t list = 0;  // of the set's lists
};

struct Request : IntakeNode<Request> {
  // --- filled by the submitter -------------------------------------------------------------------------------------
  std::string_view model_name;     // views point into `message`, `scratch` or memory that the submitter keeps
  std::string_view model_version;  // "" = by version policy
  std::string_view id;             // "" = none given
  std::vector<TensorView> inputs;  // any order
  std::vector<RequestedOutput> requested_outputs;  // empty = all
  std::vector<Parameter> parameters;               // those without a field of their own
  std::uint32_t priority = 0;                      // 0 = the model's default; 1 = highest
  Nanos deadline = kNever;     // grpc-timeout / HTTP deadline, absolute: DEADLINE_EXCEEDED when it passes
  Nanos queue_timeout_ns = 0;  // the `timeout` parameter: UNAVAILABLE when it passes in the queue; 0 = none
  CompletionQueue* completions = nullptr;  // where responses go; required
  void* owner = nullptr;        // the submitter's own (session, stream, future); the engine never looks
  std::uint64_t owner_tag = 0;  // likewise (stream id)

  std::vector<SharedInput> shared_inputs;  // inputs whose data a region has
  // Inputs stand in memory that another process can write meanwhile: the answer is not kept for others.
  bool inputs_may_change = false;
  // Of inputs that cannot be told without the model's signature (REST's raw bodies): makes them of what `inputs` has. Submit calls
  // it once, with the version that it chose; nullptr: they are complete.
  Status (*complete)(const ServedVersion& version, Request& request) = nullptr;
  std::vector<std::shared_ptr<void>> keep_alive;  // regions that it reads or that its answer is written to
  // The same of registered ones, found by submit: when one of them turns out to be broken, so is the answer (place_outputs).
  std::vector<std::shared_ptr<Region>> regions;

  ByteBuffer message;  // wire bytes that the views point into
  Scratch scratch;     // what the codec had to materialise

  // --- filled by Engine::submit ------------------------------------------------------------------------------------
  ServedVersion* version = nullptr;  // counted handle, given back by reset()
  std::int64_t rows = 1;
  std::vector<int> input_order;   // signature input -> position in `inputs`, -1 = absent
  std::vector<int> output_order;  // answer position -> signature output
  Nanos expires = kNever;         // the earlier of deadline and enqueued + queue_timeout_ns
  Waiting waiting;
  StageTimes times;
  AnswerTap* tap = nullptr;             // sees the final response before it goes out; nullptr = nobody
  std::uint64_t fingerprint = 0;        // of the inputs, for the tap of the response cache
  bool is_part = false;                 // of a larger request, which alone is counted in the statistics
  std::unique_ptr<RequestParts> parts;  // when it is larger than a batch (engine/split_request.h)
  Response response;                    // the final one; streaming backends allocate others

  // --- shared while the engine owns it -----------------------------------------------------------------------------
  // Set by the owner when the client went away: a request that has not started never runs and is answered CANCELLED.
  std::atomic<bool> cancelled{false};  // release by cancel(), acquire by the puller

  // The submitter, between submit and the final response (or before: then it is answered CANCELLED when submitted).
  void cancel();
  // Ready for the next message: gives the version handle back; keeps capacities; drops views, response and times.
  void reset();
};

}  // namespace fastserve
