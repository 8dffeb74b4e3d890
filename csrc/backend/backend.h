// The interface of a backend: a plug-in that can run a format. Three objects, from the top:
//   Backend          one per process and name ("openvino"); stateless loader.
//   LoadedModel      one loaded version: weights, signature, how many copies may run.
//   BackendInstance  one copy bound to a device; runs batches.
// A new backend implements these three and registers a factory (backend/registry.h). See csrc/README.md.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "batch/batch.h"
#include "batch/policy.h"
#include "batch/scheduling.h"
#include "memory/host_allocator.h"
#include "tensor/signature.h"

namespace fastserve {

class ModelBytes;  // backend/model_bytes.h

// What the control layer decided about a version before it is loaded (from config.pbtxt or made up from the model file).
struct LoadSpec {
  std::string model;
  std::int64_t version = 1;
  std::string backend;               // "openvino", "identity"; "" = by file name
  std::string path;                  // version directory or model file; "" for a backend without files
  std::int64_t max_batch_rows = -1;  // -1: not said, the backend decides from the model
  std::vector<TensorSpec> inputs;    // empty: take the model's own. Shapes with the batch dimension in front
  std::vector<TensorSpec> outputs;   //   when max_batch_rows > 0. Given ones are checked against the model's.
  int instance_count = 0;  // 0: the backend's default; else the sum of `groups`, where there are any
  BatchLimits limits;      // max_rows is overwritten from the signature
  QueueLimits queue;
  std::vector<InstanceGroup> groups;  // in the order of the instances; empty: one that says nothing
  std::vector<std::int64_t>
      allowed_rows;  // ascending; TF Serving's allowed_batch_sizes: prepare and run only these
  // TF Serving's enable_large_batch_splitting: a request may have up to so many rows and is run in parts of at most the
  // model's batch size; 0: a request larger than a batch is refused.
  std::int64_t max_request_rows = 0;
  std::vector<WarmUpSample> warm_up;
  bool response_cache = false;
  std::map<std::string, std::vector<std::string>> labels;  // output -> names of its classes
  std::map<std::string, std::string> parameters;  // backend's own ("execute_delay_us", OpenVINO properties)
  // The model itself, where it is not to be read from `path` (which still names it). nullptr: read `path`.
  std::shared_ptr<ModelBytes> in_memory;
  // Asked to stop when nobody waits for the load any more (it passed its time limit): a backend ends what can be ended. Set by
  // the engine.
  std::stop_token given_up;
};

// Called from the loading thread: 0..1 and what is being done ("reading", "compiling", "warming 8 rows"). Throws where the load
// was given up, which ends it.
using Progress = std::function<void(double fraction, std::string_view what)>;

class BackendInstance {
 public:
  virtual ~BackendInstance() = default;

  // How many batches start() takes before one must have finished; >= 1. The instance thread never exceeds it.
  virtual int depth() const = 0;
  // The same while batches are short (InstanceLine::kShortLine): so many spare a wake for each. >= depth().
  virtual int depth_of_short_batches() const { return depth(); }

  // Runs the gathered batch: reads batch.inputs(), fills every output with set_output, calls batch.finish() exactly once,
  // on this thread before returning or later on any other. May block on the device. Does not throw. Called by one thread
  // at a time (the instance thread, or a caller of Engine::infer that holds the instance).
  virtual void start(Batch& batch) = 0;

  // False: it reads only the batch's own memory (LoadedModel::allocator), so inputs are always copied there.
  virtual bool binds_inputs() const { return true; }

  // The GPU (the driver's ordinal) that reads inputs of its own memory by itself: Batch::device_parts(). -1: none, gather brings
  // them to the host.
  virtual int device() const { return -1; }

  // True for a batch whose rows it takes from where the requests have them (page-locked regions of clients, memory of its GPU):
  // they are not gathered, and inputs() have a shape and no data (Batch::leave_in_place).
  virtual bool reads_in_place(const Batch& /*batch*/) const { return false; }

  // True: start() only hands the batch to the device, in tens of microseconds, so that an I/O thread may call it for a request
  // that needs no copying instead of waking the instance's thread.
  virtual bool starts_promptly() const { return false; }
};

class LoadedModel {
 public:
  virtual ~LoadedModel() = default;
  virtual const Signature& signature() const = 0;
  virtual int instance_count() const = 0;
  // Batch sizes the device was prepared for, ascending; empty: any number of rows runs as it is.
  virtual std::span<const std::int64_t> buckets() const = 0;
  // True: the device runs only these, a batch is padded to the next. False: any number of rows runs as it is, but these
  // are the sizes that are warm and worth running; the warm-up may drop large ones that gain nothing.
  virtual bool pads() const { return !buckets().empty(); }
  virtual Result<std::unique_ptr<BackendInstance>> make_instance(int index) = 0;
  // Where an instance's batches have their buffers; lives as long as any of them. nullptr: plain memory. After make_instance.
  virtual std::shared_ptr<HostAllocator> allocator(int /*instance*/) { return nullptr; }
  // CPUs to which the instance's thread is best bound, when the configuration says nothing; empty: anywhere.
  virtual std::span<const int> cpus(int /*instance*/) const { return {}; }
  // False: the model is a program, and zeros of its signature's shapes need not mean anything to it: it gets no made-up
  // requests before the first real one, only the warm-up data of its configuration.
  virtual bool takes_made_up_requests() const { return true; }
  // Loader thread, once, before the first request: the sizes that the warm-up found worth running.
  virtual void warmed(std::span<const std::int64_t> /*rows*/) {}
  // For metadata, `check` and the log: "device", "precision", "streams", ...
  virtual std::map<std::string, std::string> properties() const = 0;
  virtual std::string_view platform() const = 0;  // OIP metadata: "openvino", "identity"
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view name() const = 0;
  // Loads and compiles; blocks; on a loader thread. Errors: NOT_FOUND (no file), INVALID_ARGUMENT (file or spec is wrong:
  // says which field, got and want), UNIMPLEMENTED, RESOURCE_EXHAUSTED.
  virtual Result<std::unique_ptr<LoadedModel>> load(const LoadSpec& spec, const Progress& progress) = 0;
};

// Every plug-in's one exported C function: `extern "C" fastserve::Backend* fastserve_backend()`; the object lives for ever.
using BackendEntry = Backend* (*)();
inline constexpr const char* kBackendEntryName = "fastserve_backend";

}  // namespace fastserve
