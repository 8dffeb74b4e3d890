#include "backend/openvino.h"

#include <memory>
#include <openvino/openvino.hpp>
#include <string>

#include "backend/allowed_rows.h"
#include "backend/openvino_compile.h"
#include "backend/openvino_config.h"
#include "backend/openvino_files.h"
#include "backend/openvino_instance.h"
#include "backend/openvino_memory.h"
#include "backend/openvino_precision.h"
#include "backend/openvino_signature.h"
#include "backend/openvino_text.h"
#include "backend/tune_cache.h"
#include "backend/tuning.h"
#include "base/cpu_budget.h"
#include "base/log.h"

namespace fastserve {
namespace {

// What a compiled model answers, as text; "" when the device does not know the property.
std::string property_of(const ov::CompiledModel& model, const char* name) {
  try {
    return model.get_property(name).as<std::string>();
  } catch (const std::exception&) {
    return {};
  }
}

class OpenVinoModel final : public LoadedModel {
 public:
  OpenVinoModel(ModelFile file, OpenVinoSignature resolved, OpenVinoConfig config, CompiledPlan plan)
      : file_(std::move(file)),
        resolved_(std::move(resolved)),
        config_(std::move(config)),
        plan_(std::move(plan)),
        precision_(execution_precision(plan_.sets.front()->sizes.front().model)),
        runs_before_(CpuBudget::process().runs()) {}

  const Signature& signature() const override { return resolved_.signature; }
  int instance_count() const override { return plan_.instance_count; }
  // A dynamic compile runs any number of rows, but generates code for each one when it first comes.
  std::span<const std::int64_t> buckets() const override { return plan_.rows; }
  bool pads() const override { return plan_.pads; }
  std::span<const int> cpus(int instance) const override {
    const auto at = static_cast<std::size_t>(instance);
    return at < plan_.cpus.size() ? std::span<const int>(plan_.cpus[at]) : std::span<const int>();
  }

  // What was found while others were at work is not worth keeping.
  void warmed(std::span<const std::int64_t> rows) override {
    if (!plan_.remembered || CpuBudget::process().runs() != runs_before_) return;
    TunedShape shape = plan_.remembered->shape;
    shape.most_rows = rows.empty() ? 0 : rows.back();
    const Status stored = TuneCache(tune_settings().cache_directory).store(plan_.remembered->key, shape);
    if (!stored.is_ok())
      log(LogLevel::kWarning,
          "the measured shape is not kept, it will be measured again: " + stored.message());
  }

  const ExecutionPrecision& precision() const { return precision_; }

  Result<std::unique_ptr<BackendInstance>> make_instance(int index) override {
    return openvino_guarded(
        Code::kInternal, "making an instance failed", [&]() -> Result<std::unique_ptr<BackendInstance>> {
          const auto& set = plan_.sets[static_cast<std::size_t>(index) % plan_.sets.size()];
          return std::unique_ptr<BackendInstance>(std::make_unique<OpenVinoInstance>(set, resolved_, plan_));
        });
  }

  std::map<std::string, std::string> properties() const override {
    const ov::CompiledModel& model = plan_.sets.front()->sizes.front().model;
    std::map<std::string, std::string> all = {
        {"device", config_.device},
        {"format", std::string(file_.format)},
        {"precision", precision_.name},
        {"precision_of_operations", precision_.nodes},
        {"streams", property_of(model, "NUM_STREAMS")},
        {"threads", property_of(model, "INFERENCE_NUM_THREADS")},
        {"shape", plan_.shape},
        {"compiled_models", std::to_string(plan_.sets.size() * plan_.sets.front()->sizes.size())},
        {"prepared", prepared()},
        {"batching", resolved_.batching},
        {"run", plan_.on_callers_thread ? "on the instance's thread"
                                        : "asynchronous, depth " + std::to_string(plan_.depth)},
        {"weights_bytes", std::to_string(plan_.weights_bytes)},
    };
    if (!plan_.lone.empty()) all["lone"] = plan_.lone;
    if (plan_.one_run != 0) all["one_run_us"] = std::to_string(plan_.one_run / kMicrosecond);
    return all;
  }

  std::string_view platform() const override { return "openvino"; }

 private:
  std::string prepared() const {
    if (!resolved_.signature.batches()) return "as the model is";
    const std::vector<Compiled>& sizes = plan_.sets.front()->sizes;
    const bool dynamic = sizes.back().rows == 0;
    const std::string lone = dynamic && sizes.size() > 1 ? "; one row by itself" : "";
    if (!plan_.pads) {
      return "dynamic, 1 to " + std::to_string(resolved_.signature.max_batch_rows) + " rows" + lone;
    }
    std::string text = dynamic ? "dynamic, only:" : "static:";
    for (const std::int64_t rows : plan_.rows) text += " " + std::to_string(rows);
    return text + lone;
  }

  const ModelFile file_;
  const OpenVinoSignature resolved_;
  const OpenVinoConfig config_;
  const CompiledPlan plan_;
  const ExecutionPrecision precision_;
  const CpuBudget::Runs runs_before_;
};

class OpenVinoBackend final : public Backend {
 public:
  std::string_view name() const override { return "openvino"; }

  Result<std::unique_ptr<LoadedModel>> load(const LoadSpec& given, const Progress& progress) override {
    LoadSpec spec = given;
    spec.max_batch_rows = wanted_batch_rows(given);
    if (spec.instance_count < 0) {
      return invalid_argument("instance_count: got " + std::to_string(spec.instance_count) +
                              ", want 0 or more");
    }
    return openvino_guarded(Code::kInternal, "loading failed", [&]() -> Result<std::unique_ptr<LoadedModel>> {
      FS_ASSIGN_OR_RETURN(ModelFile file, find_file(spec));
      // Compiled models that are kept hold the weights, readable for everybody who may read the folder.
      if (spec.in_memory != nullptr) spec.parameters.erase("CACHE_DIR");
      FS_ASSIGN_OR_RETURN(OpenVinoConfig config, read_openvino_config(core(), spec.parameters));
      report(progress, 0.0, "reading");
      FS_ASSIGN_OR_RETURN(const std::shared_ptr<ov::Model> model, read(file, config, spec.in_memory));
      FS_ASSIGN_OR_RETURN(OpenVinoSignature resolved, resolve(*model, spec));
      FS_RETURN_IF_ERROR(check_allowed_rows(spec, resolved.signature.max_batch_rows));
      report(progress, kReadFraction, "compiling");
      FS_ASSIGN_OR_RETURN(CompiledPlan plan,
                          compile_openvino(core(), model, resolved, config, spec, progress));
      const bool pinned = config.has("INFERENCE_PRECISION_HINT") || config.has("EXECUTION_MODE_HINT");
      auto loaded = std::make_unique<OpenVinoModel>(std::move(file), std::move(resolved), std::move(config),
                                                    std::move(plan));
      log(LogLevel::kInfo, precision_in_words(spec.model, loaded->precision(), pinned));
      return std::unique_ptr<LoadedModel>(std::move(loaded));
    });
  }

 private:
  static void report(const Progress& progress, double fraction, std::string_view what) {
    if (progress) progress(fraction, what);
  }

  // Made with the first model: opening OpenVINO's plug-ins takes a while.
  static ov::Core& core() {
    static ov::Core core;
    return core;
  }

  static Result<ModelFile> find_file(const LoadSpec& spec) {
    if (spec.in_memory == nullptr) return find_model_file(spec.path);
    return ModelFile{spec.path, spec.path.ends_with(".xml.enc") ? "IR" : "ONNX"};
  }

  // The file is at fault when it cannot be read. Not mapped into memory unless asked for (ENABLE_MMAP): a mapped file that
  // somebody overwrites in place while it is served ends the process with SIGBUS.
  static Result<std::shared_ptr<ov::Model>> read(const ModelFile& file, const OpenVinoConfig& config,
                                                 const std::shared_ptr<ModelBytes>& in_memory) {
    ModelBytes::Parts parts = in_memory == nullptr ? ModelBytes::Parts{} : in_memory->take();
    if (in_memory != nullptr && parts.model == nullptr)
      return Status(Code::kFailedPrecondition, "the model in memory is gone: it was loaded before");
    return openvino_guarded(
        Code::kInvalidArgument, "cannot read \"" + file.path + "\" as " + std::string(file.format),
        [&]() -> Result<std::shared_ptr<ov::Model>> {
          if (parts.model != nullptr) return read_model_in_memory(core(), std::move(parts));
          const auto mmap = config.properties.find("ENABLE_MMAP");
          const ov::Any mapped = mmap == config.properties.end() ? ov::Any("NO") : mmap->second;
          return core().read_model(file.path, std::string(), {{"ENABLE_MMAP", mapped}});
        });
  }

  static Result<OpenVinoSignature> resolve(ov::Model& model, const LoadSpec& spec) {
    return openvino_guarded(Code::kInvalidArgument, "the model's shapes do not fit",
                            [&] { return resolve_signature(model, spec); });
  }
};

}  // namespace

Backend& openvino_backend() {
  static OpenVinoBackend backend;
  return backend;
}

}  // namespace fastserve

extern "C" fastserve::Backend* fastserve_backend() { return &fastserve::openvino_backend(); }
