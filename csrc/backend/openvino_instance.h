// Runs batches on infer requests of prepared models: inputs bound where they are, outputs written into the batch's memory.
//
// Alignment: OpenVINO's CPU plug-in takes inputs and outputs at any address (measured with 1, 2, 4, 8 and 16 bytes off for
// f32: same results, same time), so a bound input is never copied.
// Prepared models do not know of one another: two that run at once share the CPUs, and each takes longer than both in turn. So
// with several of them a batch for another one waits until those under way have ended (model_order.h).
// Thread: start() by one thread at a time; unless the model runs on that thread, an OpenVINO thread finishes the batch and does nothing else.
#pragma once

#include <atomic>
#include <memory>
#include <openvino/openvino.hpp>
#include <vector>

#include "backend/backend.h"
#include "backend/model_order.h"
#include "backend/openvino_compile.h"
#include "backend/openvino_shapes.h"
#include "backend/openvino_signature.h"
#include "base/cpu_budget.h"
#include "base/status.h"

namespace fastserve {

class OpenVinoInstance final : public BackendInstance {
 public:
  // `resolved` and `plan` outlive the instance (the LoadedModel owns them). `set` is one of the plan's.
  // Throws ov::Exception.
  OpenVinoInstance(std::shared_ptr<const CompiledSet> set, const OpenVinoSignature& resolved,
                   const CompiledPlan& plan);

  int depth() const override { return static_cast<int>(flights_.size()); }
  void start(Batch& batch) override;
  bool starts_promptly() const override { return !on_callers_thread_; }

 private:
  // What an infer request was told last: telling it again costs 1.5-2 us a tensor.
  struct Bound {
    const std::byte* data = nullptr;
    Shape shape;
  };
  // One infer request of one prepared model.
  struct Run {
    std::int64_t rows = 0;
    ov::InferRequest request;
    std::vector<Bound> inputs;
    std::vector<Bound> outputs;
  };
  // One batch on its way.
  struct Flight {
    ModelOrder::Place place;  // among the prepared models
    CpuBudget::Turn turn;     // of a heavy run
    OpenVinoInstance* instance = nullptr;
    bool counted = false;   // in CpuBudget::runs
    std::vector<Run> runs;  // one per prepared size
    Run* run = nullptr;
    Batch* batch = nullptr;
    std::atomic<bool> busy{false};  // release by the finisher, acquire by start()
  };
  // One output of the signature.
  struct Output {
    std::size_t port = 0;
    DType dtype = DType::kFp32;
    ov::element::Type type;
    Shape shape;  // with -1 in front when the model batches
    bool fixed =
        false;  // the size follows from the rows, so that the model can write into the batch's memory
  };

  Flight* free_flight();
  Run* find_run(Flight& flight, std::int64_t rows);
  Status bind_inputs(Run& run, Batch& batch);
  Status bind_outputs(Run& run, Batch& batch);
  Status collect(Run& run, Batch& batch);
  void depart(Flight& flight);
  void run_here(Flight& flight);
  void run_elsewhere(Flight& flight);
  void take_turn(Flight& flight);
  void land(Flight& flight, Status status);

  const std::shared_ptr<const CompiledSet> set_;
  const OpenVinoSignature& resolved_;
  const bool on_callers_thread_;
  const int threads_of_run_;
  std::unique_ptr<OpenVinoShapes> shapes_;  // nullptr: no dimension is free but the rows
  std::vector<Output> outputs_;
  std::vector<Flight> flights_;
  std::unique_ptr<ModelOrder> order_;  // nullptr: one prepared model, or one batch at a time
};

}  // namespace fastserve
