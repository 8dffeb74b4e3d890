#include "backend/openvino_instance.h"

#include <cstring>
#include <string>

#include "backend/openvino_text.h"

namespace fastserve {
namespace {

ov::Shape to_openvino(const Shape& shape) {
  ov::Shape dims;
  dims.reserve(shape.rank());
  for (const std::int64_t dim : shape.dims()) dims.push_back(static_cast<std::size_t>(dim));
  return dims;
}

Shape from_openvino(const ov::Shape& dims) {
  Shape shape;
  for (const std::size_t dim : dims) shape.push_back(static_cast<std::int64_t>(dim));
  return shape;
}

Status no_memory(const std::string& name, std::size_t bytes) {
  return {Code::kResourceExhausted,
          "no memory for " + std::to_string(bytes) + " bytes of output \"" + name + "\""};
}

Status from_exception(const std::exception_ptr& exception) {
  return openvino_guarded(Code::kInternal, "the model's run failed",
                          [&]() -> Status { std::rethrow_exception(exception); });
}

}  // namespace

OpenVinoInstance::OpenVinoInstance(std::shared_ptr<const CompiledSet> set, const OpenVinoSignature& resolved,
                                   const CompiledPlan& plan)
    : set_(std::move(set)),
      resolved_(resolved),
      on_callers_thread_(plan.on_callers_thread),
      threads_of_run_(plan.threads_of_run),
      flights_(static_cast<std::size_t>(plan.depth)) {
  if (plan.weightless != nullptr) shapes_ = std::make_unique<OpenVinoShapes>(*plan.weightless, resolved);
  const Signature& signature = resolved.signature;
  for (std::size_t i = 0; i < signature.outputs.size(); ++i) {
    const std::size_t port = resolved.output_ports[i];
    // The compiled model knows, whatever the configuration promised: a wrong guess would fail every run. The last one is the
    // most general.
    const ov::Output<const ov::Node> node = set_->sizes.back().model.output(port);
    Output output{port, signature.outputs[i].dtype, node.get_element_type(), signature.outputs[i].shape,
                  true};
    const ov::PartialShape& shape = node.get_partial_shape();
    output.fixed = shape.rank().is_static();
    for (std::size_t d = signature.batches() ? 1 : 0; output.fixed && d < shape.size(); ++d) {
      output.fixed = shape[d].is_static();
    }
    outputs_.push_back(output);
  }
  if (set_->sizes.size() > 1 && plan.depth > 1) order_ = std::make_unique<ModelOrder>();
  for (Flight& flight : flights_) {
    flight.instance = this;
    for (const Compiled& size : set_->sizes) {
      ov::CompiledModel model = size.model;  // counted, not copied
      flight.runs.push_back({size.rows, model.create_infer_request(),
                             std::vector<Bound>(signature.inputs.size()),
                             std::vector<Bound>(signature.outputs.size())});
    }
  }
}

void OpenVinoInstance::start(Batch& batch) {
  Flight* flight = free_flight();
  if (flight == nullptr)
    return batch.finish(internal_error("more batches at once than the instance's depth"));
  flight->batch = &batch;
  flight->counted = !PreparingScope::here();
  if (flight->counted) CpuBudget::process().run_started();
  flight->run = find_run(*flight, batch.run_rows());
  if (flight->run == nullptr) {
    return land(*flight,
                internal_error("no model is prepared for " + std::to_string(batch.run_rows()) + " rows"));
  }
  Status bound = openvino_guarded(Code::kInternal, "binding the tensors failed", [&]() -> Status {
    if (shapes_ != nullptr) FS_RETURN_IF_ERROR(shapes_->check(batch.inputs()));
    FS_RETURN_IF_ERROR(bind_inputs(*flight->run, batch));
    return bind_outputs(*flight->run, batch);
  });
  if (!bound.is_ok()) return land(*flight, std::move(bound));
  if (order_ == nullptr) return depart(*flight);
  flight->place = {[](ModelOrder::Place& place) {
                     auto& waited = *static_cast<Flight*>(place.owner);
                     waited.instance->depart(waited);
                   },
                   flight, flight->run->rows};
  if (order_->enter(flight->place)) depart(*flight);
}

void OpenVinoInstance::depart(Flight& flight) {
  if (threads_of_run_ != 0) return take_turn(flight);
  // The warm-up's runs on the loader's thread and at its priority: the first one of a size prepares it.
  on_callers_thread_ || !flight.counted ? run_here(flight) : run_elsewhere(flight);
}

// A heavy run starts when the budget has room for its threads: now, or later on the thread of a run that ends, which must not
// be kept busy.
void OpenVinoInstance::take_turn(Flight& flight) {
  const auto on_turn = [](CpuBudget::Turn& turn) {
    auto& waited = *static_cast<Flight*>(turn.owner);
    waited.instance->run_elsewhere(waited);
  };
  flight.turn = {on_turn, &flight, threads_of_run_};
  if (!CpuBudget::process().take(flight.turn)) return;
  on_callers_thread_ || !flight.counted ? run_here(flight) : run_elsewhere(flight);
}

OpenVinoInstance::Flight* OpenVinoInstance::free_flight() {
  for (Flight& flight : flights_) {
    if (flight.busy.load(std::memory_order_acquire)) continue;  // partner: land()
    flight.busy.store(true, std::memory_order_relaxed);         // only this thread takes
    return &flight;
  }
  return nullptr;
}

OpenVinoInstance::Run* OpenVinoInstance::find_run(Flight& flight, std::int64_t rows) {
  for (Run& run : flight.runs) {
    if (run.rows == 0 || run.rows == rows) return &run;
  }
  return nullptr;
}

Status OpenVinoInstance::bind_inputs(Run& run, Batch& batch) {
  for (std::size_t i = 0; i < run.inputs.size(); ++i) {
    const BatchTensor& tensor = batch.inputs()[i];
    Bound& bound = run.inputs[i];
    if (bound.data == tensor.data && bound.shape == tensor.shape) continue;
    bound.data = nullptr;  // not bound when set_input_tensor throws
    run.request.set_input_tensor(
        resolved_.input_ports[i],
        ov::Tensor(dtype_to_openvino(tensor.dtype), to_openvino(tensor.shape), tensor.data));
    bound = {tensor.data, tensor.shape};
  }
  return Status::ok();
}

Status OpenVinoInstance::bind_outputs(Run& run, Batch& batch) {
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    if (!outputs_[i].fixed) continue;
    Shape shape = outputs_[i].shape;
    if (resolved_.signature.batches()) shape[0] = batch.run_rows();
    const std::size_t bytes = shape.byte_count(outputs_[i].dtype).value_or(0);
    std::byte* memory = batch.output_memory(i, bytes);
    if (memory == nullptr) return no_memory(resolved_.signature.outputs[i].name, bytes);
    batch.set_output(i, outputs_[i].dtype, shape, memory, bytes);
    Bound& bound = run.outputs[i];
    if (bound.data == memory && bound.shape == shape) continue;
    bound.data = nullptr;
    run.request.set_output_tensor(outputs_[i].port, ov::Tensor(outputs_[i].type, to_openvino(shape), memory));
    bound = {memory, shape};
  }
  return Status::ok();
}

// Outputs whose size only the run tells: copied, because the infer request is used again while responses are still read.
Status OpenVinoInstance::collect(Run& run, Batch& batch) {
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    if (outputs_[i].fixed) continue;
    const ov::Tensor tensor = run.request.get_output_tensor(outputs_[i].port);
    const std::size_t bytes = tensor.get_byte_size();
    std::byte* memory = batch.output_memory(i, bytes);
    if (memory == nullptr) return no_memory(resolved_.signature.outputs[i].name, bytes);
    if (bytes != 0) std::memcpy(memory, tensor.data(), bytes);
    batch.set_output(i, outputs_[i].dtype, from_openvino(tensor.get_shape()), memory, bytes);
  }
  return Status::ok();
}

void OpenVinoInstance::run_here(Flight& flight) {
  land(flight, openvino_guarded(Code::kInternal, "the model's run failed", [&] {
         flight.run->request.infer();
         return collect(*flight.run, *flight.batch);
       }));
}

void OpenVinoInstance::run_elsewhere(Flight& flight) {
  Status started = openvino_guarded(Code::kInternal, "starting the model failed", [&] {
    // Set anew for every run: OpenVINO takes the callback out while it calls it, and puts it back only after it returned;
    // but the flight is free from land() on and may have been started again by then.
    flight.run->request.set_callback([this, &flight](const std::exception_ptr& exception) {
      if (exception) return land(flight, from_exception(exception));
      land(flight, openvino_guarded(Code::kInternal, "reading the outputs failed",
                                    [&] { return collect(*flight.run, *flight.batch); }));
    });
    flight.run->request.start_async();
    return Status::ok();
  });
  if (!started.is_ok()) land(flight, std::move(started));
}

// The flight is free before the batch is finished: finish() may wake the thread that starts the next one.
void OpenVinoInstance::land(Flight& flight, Status status) {
  Batch* batch = flight.batch;
  CpuBudget& budget = CpuBudget::process();
  if (flight.counted) budget.run_ended();
  if (threads_of_run_ != 0) budget.give_back(flight.turn);
  if (order_ != nullptr) order_->leave(flight.place);
  flight.busy.store(false, std::memory_order_release);
  batch->finish(std::move(status));
}

}  // namespace fastserve
