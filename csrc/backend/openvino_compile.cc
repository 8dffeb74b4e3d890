#include "backend/openvino_compile.h"

#include <algorithm>
#include <cstring>
#include <openvino/op/constant.hpp>
#include <optional>
#include <string>

#include "backend/openvino_cpus.h"
#include "backend/openvino_shapes.h"
#include "backend/openvino_text.h"

namespace fastserve {
namespace {

std::size_t count_weights(const ov::Model& model) {
  std::size_t bytes = 0;
  for (const auto& node : model.get_ops()) {
    if (const auto* constant = ov::as_type<const ov::op::v0::Constant>(node.get()))
      bytes += constant->get_byte_size();
  }
  return bytes;
}

ov::Shape smallest(const ov::PartialShape& partial) {
  ov::Shape shape;
  for (const ov::Dimension& dim : partial) {
    shape.push_back(dim.is_static()
                        ? static_cast<std::size_t>(dim.get_length())
                        : static_cast<std::size_t>(std::max<std::int64_t>(dim.get_min_length(), 1)));
  }
  return shape;
}

// Best of some runs on zeros with one row. nullopt when the model does not take that (lengths of 1, indices of 0).
// Asynchronously for a model with free shapes (see the header), which adds the hop to the figure.
std::optional<Nanos> measure_one_run(ov::CompiledModel& compiled, bool fixed_shapes) {
  constexpr int kRuns = 5;
  try {
    ov::InferRequest request = compiled.create_infer_request();
    for (std::size_t i = 0; i < compiled.inputs().size(); ++i) {
      ov::Tensor zeros(compiled.input(i).get_element_type(), smallest(compiled.input(i).get_partial_shape()));
      if (zeros.get_byte_size() != 0) std::memset(zeros.data(), 0, zeros.get_byte_size());
      request.set_input_tensor(i, zeros);
    }
    const auto run = [&] {
      if (fixed_shapes) return request.infer();
      request.start_async();
      request.wait();
    };
    run();  // the first one allocates and generates code
    Nanos best = kNever;
    for (int i = 0; i < kRuns; ++i) {
      const Nanos begin = monotonic_now();
      run();
      best = std::min(best, monotonic_now() - begin);
    }
    return best;
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

class Compiler {
 public:
  Compiler(ov::Core& core, const std::shared_ptr<ov::Model>& model, const OpenVinoSignature& resolved,
           const OpenVinoConfig& config, int instance_count, const Progress& progress)
      : core_(core), model_(model), resolved_(resolved), config_(config), progress_(progress) {
    plan_.instance_count = std::max(instance_count, 1);
    instances_given_ = instance_count > 0;
    plan_.weights_bytes = count_weights(*model);
    // Threads and streams in the user's hand: no plan of ours around them. One stream is what the light plan wants anyway.
    const auto streams = config.properties.find("NUM_STREAMS");
    streams_given_ = config.has("PERFORMANCE_HINT") ||
                     (streams != config.properties.end() && streams->second.as<std::string>() != "1");
  }

  Result<CompiledPlan> run() {
    if (OpenVinoShapes::needed(resolved_.signature)) plan_.weightless = without_weights(*model_);
    const bool may_be_static = resolved_.signature.batches() && config_.prepared != Prepared::kDynamic;
    const bool small = plan_.weights_bytes <= kSmallWeightsBytes;
    // The light plan's first compile doubles as the measurement.
    const std::int64_t rows = may_be_static ? 1 : 0;
    if (config_.device == "CPU" && small && !streams_given_ && fixed_shapes(rows)) {
      ov::CompiledModel first = compile(rows, light_properties());
      const std::optional<Nanos> one_run = measure_one_run(first, true);
      if (one_run && *one_run < kLightRun) {
        plan_.one_run = *one_run;
        return light(Compiled{rows, std::move(first)}, may_be_static);
      }
    }
    return shared(may_be_static && config_.prepared == Prepared::kStatic);
  }

 private:
  Result<CompiledPlan> light(const Compiled& first, bool prepared) {
    if (prepared) plan_.buckets = static_buckets(resolved_.signature.max_batch_rows);
    steps_ = std::max<std::size_t>(plan_.buckets.size(), 1) * static_cast<std::size_t>(plan_.instance_count);
    const std::vector<std::int64_t> sizes = prepared ? plan_.buckets : std::vector<std::int64_t>{0};
    for (int i = 0; i < plan_.instance_count; ++i) {
      auto set = std::make_shared<CompiledSet>();
      for (const std::int64_t rows : sizes) {
        const bool measured = i == 0 && rows == first.rows;
        set->sizes.push_back(measured ? first : Compiled{rows, compile(rows, light_properties())});
        report();
      }
      plan_.sets.push_back(std::move(set));
    }
    plan_.depth = config_.depth == 0 ? 1 : config_.depth;
    plan_.on_callers_thread = plan_.depth == 1;
    return std::move(plan_);
  }

  Result<CompiledPlan> shared(bool prepared) {
    if (prepared) plan_.buckets = static_buckets(resolved_.signature.max_batch_rows);
    const std::vector<std::int64_t> sizes = prepared ? plan_.buckets : std::vector<std::int64_t>{0};
    steps_ = sizes.size();
    auto set = std::make_shared<CompiledSet>();
    for (const std::int64_t rows : sizes) {
      set->sizes.push_back({rows, compile(rows, shared_properties())});
      report();
    }
    const bool fixed = fixed_shapes(sizes.front());
    const auto one_run = measure_one_run(set->sizes.front().model, fixed);
    plan_.one_run = one_run.value_or(0);
    const bool is_light = one_run && *one_run < kLightRun;
    plan_.depth = config_.depth != 0 ? config_.depth : is_light && fixed ? 1 : kHeavyDepth;
    plan_.on_callers_thread = plan_.depth == 1 && fixed;
    if (!instances_given_ && streams_given_) plan_.instance_count = streams_of(set->sizes.front().model);
    plan_.sets.push_back(std::move(set));
    return std::move(plan_);
  }

  std::shared_ptr<ov::Model> sized(std::int64_t rows) const {
    auto copy = model_->clone();
    if (rows != 0) reshape_rows(*copy, resolved_, ov::Dimension(rows));
    return copy;
  }

  // Of every node, not only of inputs and outputs.
  bool fixed_shapes(std::int64_t rows) const { return !sized(rows)->is_dynamic(); }

  ov::CompiledModel compile(std::int64_t rows, const ov::AnyMap& properties) {
    return core_.compile_model(sized(rows), config_.device, properties);
  }

  ov::AnyMap light_properties() const {
    ov::AnyMap properties = config_.properties;
    properties.emplace("NUM_STREAMS", "1");
    properties.emplace("INFERENCE_NUM_THREADS", "1");
    return properties;
  }

  ov::AnyMap shared_properties() const {
    ov::AnyMap properties = config_.properties;
    if (config_.device != "CPU") return properties;
    if (!streams_given_) properties.emplace("NUM_STREAMS", std::to_string(plan_.instance_count));
    properties.emplace("INFERENCE_NUM_THREADS", std::to_string(usable_cpus()));
    return properties;
  }

  static int streams_of(const ov::CompiledModel& model) {
    return std::max(model.get_property(ov::num_streams).num, 1);
  }

  void report() {
    ++done_;
    if (!progress_) return;
    const std::size_t next = std::min(done_ + 1, steps_);
    progress_(
        kReadFraction + (1.0 - kReadFraction) * static_cast<double>(done_) / static_cast<double>(steps_),
        "compiling " + std::to_string(next) + " of " + std::to_string(steps_));
  }

  ov::Core& core_;
  const std::shared_ptr<ov::Model>& model_;
  const OpenVinoSignature& resolved_;
  const OpenVinoConfig& config_;
  const Progress& progress_;
  bool instances_given_ = false;
  bool streams_given_ = false;
  std::size_t steps_ = 1;
  std::size_t done_ = 0;
  CompiledPlan plan_;
};

}  // namespace

Result<CompiledPlan> compile_openvino(ov::Core& core, const std::shared_ptr<ov::Model>& model,
                                      const OpenVinoSignature& resolved, const OpenVinoConfig& config,
                                      int instance_count, const Progress& progress) {
  auto plan = openvino_guarded(Code::kInternal, "compiling for " + config.device, [&] {
    return Compiler(core, model, resolved, config, instance_count, progress).run();
  });
  if (!plan.is_ok() && plan.status().code() == Code::kInternal) {
    FS_RETURN_IF_ERROR(blame_property(core, config));
  }
  return plan;
}

std::vector<std::int64_t> static_buckets(std::int64_t max_rows) {
  std::vector<std::int64_t> buckets;
  for (std::int64_t rows = 1; rows < max_rows; rows *= 2) buckets.push_back(rows);
  buckets.push_back(max_rows);
  return buckets;
}

}  // namespace fastserve
