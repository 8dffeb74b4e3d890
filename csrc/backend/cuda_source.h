// What the CUDA lane runs: models whose step can be captured as a CUDA graph, given by a source ("tensorrt", "pytorch").
//
// A GraphSource opens a version once for each device that it is to run on: a GraphModel. The lane (backend/cuda.h) owns
// streams, events, device buffers, scratch memory and instantiated graphs, and runs the batches; the model only says what to
// capture. What cannot be captured is run batch by batch through GraphModel::run: slow, but right.
// No type of cuda.h stands here: handles are CUstream and CUgraph as std::uintptr_t, addresses CUdeviceptr as std::uint64_t.
// Mirrored for Python by python/fastserve/gpu/source.py (bind/cuda_source.cc).
//
// Thread: open, capture and close on a loader thread, one call at a time for all models of the process that open or capture
// (the lane holds a lock for both); run on the thread of the instance that has the lane, for several instances at once. The device's primary context is
// current in all of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "base/status.h"
#include "tensor/signature.h"

namespace fastserve {

using DeviceAddress = std::uint64_t;  // CUdeviceptr; 0 = none
using StreamHandle = std::uintptr_t;  // CUstream, made with CU_STREAM_NON_BLOCKING; never 0
using GraphHandle = std::uintptr_t;   // CUgraph

inline constexpr int kMaxLanes = 8;                        // of one instance
inline constexpr std::size_t kDeviceAlignmentBytes = 256;  // of every address that the lane hands out

// A tensor on the device, dense.
struct DeviceTensor {
  DeviceAddress address = 0;
  Shape shape;            // with the rows of the run in front when the model batches
  std::size_t bytes = 0;  // of the shape
};

// What a lane lends for its whole life: the same addresses for all sizes, which are never run at once. Lanes of one model may run
// at once, so nothing but weights may be shared between them.
struct LaneMemory {
  int lane = 0;  // 0 .. GraphLoad::lanes - 1
  StreamHandle stream = 0;
  // Signature order; room for the largest size; zeroed. 0: its size is not fixed by the rows, or the model owns it.
  std::vector<DeviceAddress> inputs;
  std::vector<DeviceAddress> outputs;
  DeviceAddress scratch =
      0;  // GraphModel::lane_scratch_bytes(); contents undefined; 0 when none was asked for
};

// One size of one lane, captured.
struct Captured {
  GraphHandle graph = 0;  // 0: it cannot be captured, and `why_not` says why: such batches go through run()
  std::string why_not;
  // Where the graph reads and writes, when the model chose its own memory (owns_inputs, owns_outputs); signature order.
  // Empty: those of LaneMemory. Valid until the model is closed.
  std::vector<DeviceAddress> inputs;
  std::vector<DeviceAddress> outputs;
};

// One loaded version on one device.
class GraphModel {
 public:
  virtual ~GraphModel() = default;

  // Shapes with -1 in front when max_batch_rows > 0. No BYTES, no optional inputs. The same for all devices.
  virtual const Signature& signature() const = 0;
  // Sizes to capture, ascending, the last one max_batch_rows; {1} or empty for a model without a batch dimension. Empty for one
  // that batches: nothing is captured, every batch goes through run() with its real rows, without padding.
  virtual std::span<const std::int64_t> buckets() const = 0;
  // Activation memory that one lane needs, the largest of all sizes; bytes. 0: none, or the model has its own.
  virtual std::size_t lane_scratch_bytes() const { return 0; }
  // True: the lane allocates none, and Captured or the result of run() says where they are.
  virtual bool owns_inputs() const { return false; }
  virtual bool owns_outputs() const { return false; }
  // Device memory that it took when it was opened; bytes; 0 = unknown (then the ledger measures).
  virtual std::size_t weights_bytes() const { return 0; }
  virtual std::string_view platform() const = 0;  // OIP metadata: "tensorrt_plan"
  // For metadata, `check` and the log: "precision", "engine", ... "device", "lanes" and "graphs" are the lane's.
  virtual std::map<std::string, std::string> properties() const { return {}; }

  // Warms `rows` up on the lane's stream (everything lazy happens here), synchronises that stream, captures the step on it with
  // the thread-local mode and returns the graph, which stays the model's: the lane instantiates it and may do so again until
  // close(). Never touches the legacy stream. Called for each lane and size, the largest size first. An error fails the load;
  // what is merely not capturable is a Captured without a graph. Not called when graphs are switched off.
  virtual Result<Captured> capture(const LaneMemory& memory, std::int64_t rows) = 0;

  // One batch without a graph: puts the step on memory.stream; may wait for that stream, and for nothing else. `inputs` are being
  // copied on the same stream. With buckets, rows is one of them and padding rows are zero; else the real rows.
  // Returns where the outputs are, signature order, shapes as they came out; empty: those of LaneMemory with the shapes that the
  // signature says for `rows`. Output memory of its own must stay until the next run() or capture() of that lane.
  virtual Result<std::vector<DeviceTensor>> run(const LaneMemory& memory, std::int64_t rows,
                                                std::span<const DeviceTensor> inputs) = 0;

  // No lane runs it any more and all instantiated graphs are gone; then it is destroyed. Not called on a dead device: the object
  // is then kept for ever, because freeing memory of a dead context is forbidden.
  virtual void close() {}
};

// What a source is told when it opens a version.
struct GraphLoad {
  const LoadSpec& spec;  // allowed_rows, max_batch_rows, inputs, outputs and parameters of the configuration
  int device = 0;        // ordinal of the driver
  std::string device_uuid;  // "GPU-..." or "MIG-..."
  std::string device_name;  // "NVIDIA H200"
  int lanes = 1;            // of all its instances on this device
  bool graphs = true;       // false: capture() will not be called (parameter "graphs")
  const Progress& progress;
};

class GraphSource {
 public:
  virtual ~GraphSource() = default;
  virtual std::string_view name() const = 0;  // of the backend: "tensorrt"
  // Errors as of Backend::load.
  virtual Result<std::unique_ptr<GraphModel>> open(const GraphLoad& load) = 0;
};

}  // namespace fastserve
