// A backend that a test steers: start() keeps the batch, the test finishes it when it likes, from any thread. So busy
// instances, full queues and late deadlines need no sleeping.
#pragma once

#include <condition_variable>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "base/cpu_budget.h"
#include "batch/batch.h"

namespace fastserve {

class Gate {
 public:
  void keep(Batch& batch) {
    const std::lock_guard lock(mutex_);
    kept_.push_back(&batch);
    changed_.notify_all();
  }
  // Blocks until a batch is there; the oldest one.
  Batch& next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !kept_.empty(); });
    Batch* batch = kept_.front();
    kept_.pop_front();
    return *batch;
  }
  std::size_t kept() {
    const std::lock_guard lock(mutex_);
    return kept_.size();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Batch*> kept_;
};

// Outputs = inputs, as identity.
inline void echo(Batch& batch) {
  for (std::size_t i = 0; i < batch.outputs().size(); ++i) {
    const BatchTensor& input = batch.inputs()[i];
    std::byte* memory = batch.output_memory(i, input.bytes);
    if (input.bytes != 0) std::memcpy(memory, input.data, input.bytes);
    batch.set_output(i, input.dtype, input.shape, memory, input.bytes);
  }
  batch.finish(Status::ok());
}

// What goes wrong, if anything.
enum class Fault { kNone, kLoadThrows, kLoadFails, kStartFails, kStartThrows, kNoOutput };

class GateBackend final : public Backend {
 public:
  explicit GateBackend(int depth = 1) : depth_(depth) {}
  std::string_view name() const override { return "gate"; }
  Result<std::unique_ptr<LoadedModel>> load(const LoadSpec& spec, const Progress& progress) override {
    progress(0.5, "reading");
    if (fault == Fault::kLoadThrows) throw std::runtime_error("the file bites");
    if (fault == Fault::kLoadFails) return invalid_argument("model.bin: got garbage, want a model");
    ++loads;
    return std::unique_ptr<LoadedModel>(std::make_unique<Model>(*this, spec));
  }

  Gate gate;
  bool open = true;  // true: start() answers at once; false: it keeps the batch. Set while nothing runs
  Fault fault = Fault::kNone;
  std::vector<std::int64_t> buckets;
  std::vector<std::int64_t> ran_rows;  // run_rows of every start() while open
  int loads = 0;
  std::vector<std::int64_t> warmed_rows;  // what LoadedModel::warmed was told
  int counted_runs = 0;                   // starts outside of a PreparingScope, while open

 private:
  class Instance final : public BackendInstance {
   public:
    explicit Instance(GateBackend& backend) : backend_(backend) {}
    int depth() const override { return backend_.depth_; }
    void start(Batch& batch) override {
      switch (backend_.fault) {
        case Fault::kStartFails:
          return batch.finish(internal_error("the device is on fire"));
        case Fault::kStartThrows:
          throw std::runtime_error("start threw");
        case Fault::kNoOutput:
          return batch.finish(Status::ok());
        default:
          break;
      }
      if (!backend_.open) return backend_.gate.keep(batch);
      {
        const std::lock_guard lock(backend_.ran_mutex_);  // instances may run at the same time
        backend_.ran_rows.push_back(batch.run_rows());
        if (!PreparingScope::here()) ++backend_.counted_runs;
      }
      echo(batch);
    }

   private:
    GateBackend& backend_;
  };
  class Model final : public LoadedModel {
   public:
    Model(GateBackend& backend, const LoadSpec& spec)
        : backend_(backend),
          signature_{spec.inputs, spec.outputs, spec.max_batch_rows > 0 ? spec.max_batch_rows : 0},
          instances_(spec.instance_count) {}
    const Signature& signature() const override { return signature_; }
    int instance_count() const override { return instances_; }
    std::span<const std::int64_t> buckets() const override { return backend_.buckets; }
    void warmed(std::span<const std::int64_t> rows) override {
      backend_.warmed_rows.assign(rows.begin(), rows.end());
    }
    Result<std::unique_ptr<BackendInstance>> make_instance(int) override {
      return std::unique_ptr<BackendInstance>(std::make_unique<Instance>(backend_));
    }
    std::map<std::string, std::string> properties() const override { return {{"device", "GATE"}}; }
    std::string_view platform() const override { return "gate"; }

   private:
    GateBackend& backend_;
    const Signature signature_;
    const int instances_;
  };

  const int depth_;
  std::mutex ran_mutex_;  // of writers; a test reads when nothing runs
};

}  // namespace fastserve
