#include "backend/openvino_compile.h"

#include <algorithm>
#include <openvino/op/constant.hpp>
#include <optional>
#include <set>
#include <string>

#include "backend/openvino_lone.h"
#include "backend/openvino_measure.h"
#include "backend/openvino_shapes.h"
#include "backend/openvino_text.h"
#include "backend/openvino_tune.h"
#include "backend/tuning.h"
#include "base/cpu_budget.h"
#include "base/cpu_limits.h"
#include "base/numa.h"

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

class Compiler {
 public:
  Compiler(ov::Core& core, const std::shared_ptr<ov::Model>& model, const OpenVinoSignature& resolved,
           const OpenVinoConfig& config, const LoadSpec& spec, const Progress& progress)
      : core_(core),
        model_(model),
        resolved_(resolved),
        config_(config),
        spec_(spec),
        progress_(progress),
        threads_(CpuBudget::process().threads()) {
    plan_.instance_count = std::max(spec.instance_count, 1);
    plan_.weights_bytes = count_weights(*model);
    const bool one_stream = config.has("NUM_STREAMS") && config.text("NUM_STREAMS") == "1";
    // Threads and streams in the user's hand: no plan of ours around them. One stream is what the light plan wants anyway.
    streams_given_ = config.has("PERFORMANCE_HINT") || (config.has("NUM_STREAMS") && !one_stream);
    if (config.device == "CPU") nodes_ = read_nodes(affinity_cpus());
    for (const InstanceGroup& group : spec.groups)
      pinned_.insert(pinned_.end(), static_cast<std::size_t>(std::max(group.count, 0)), group.cpus);
    narrow_threads();
  }

  Result<CompiledPlan> run() {
    if (OpenVinoShapes::needed(resolved_.signature)) plan_.weightless = without_weights(*model_);
    const bool may_be_static = resolved_.signature.batches() && config_.prepared != Prepared::kDynamic &&
                               config_.prepared != Prepared::kLone;
    const bool small = plan_.weights_bytes <= kSmallWeightsBytes;
    // The light plan's first compile doubles as the measurement.
    const std::int64_t rows = may_be_static ? 1 : 0;
    if (config_.device == "CPU" && small && !streams_given_ && fixed_shapes(rows)) {
      ov::CompiledModel first = compile(rows, light_properties());
      const std::optional<Nanos> one_run = measure_lone(first, true);
      if (one_run && *one_run < kLightRun) {
        plan_.one_run = *one_run;
        return light(Compiled{rows, std::move(first)}, may_be_static);
      }
    }
    return shared(may_be_static && config_.prepared == Prepared::kStatic);
  }

 private:
  Result<CompiledPlan> light(const Compiled& first, bool prepared) {
    plan_.shape = "one thread for each instance: a run is too short to share";
    decide_sizes(prepared);
    plan_.cpus = place_instances(plan_.instance_count, nodes_, pinned_);
    const std::vector<std::int64_t> sizes = compiled_sizes(prepared);
    steps_ = sizes.size() * static_cast<std::size_t>(plan_.instance_count);
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
    const std::vector<std::int64_t> sizes = compiled_sizes(prepared);
    std::optional<ov::CompiledModel> first = decide_streams(sizes);
    decide_sizes(prepared);
    plan_.cpus = place_instances(plan_.instance_count, {}, pinned_);  // streams are placed by OpenVINO itself
    steps_ = sizes.size();
    auto set = std::make_shared<CompiledSet>();
    for (const std::int64_t rows : sizes) {
      set->sizes.push_back({rows, first ? *first : compile(rows, shared_properties())});
      report();
    }
    decide_running(set->sizes.front());
    if (auto lone = decide_lone(set->sizes.front())) {
      set->sizes.insert(set->sizes.begin(), {1, std::move(*lone)});
    }
    plan_.sets.push_back(std::move(set));
    return std::move(plan_);
  }

  // Where and how runs of this prepared model are to be made.
  void decide_running(const Compiled& prepared) {
    ov::CompiledModel model = prepared.model;  // counted, not copied
    const bool fixed = fixed_shapes(prepared.rows);
    const auto one_run = measure_lone(model, fixed);
    plan_.one_run = one_run.value_or(0);
    const bool is_light = one_run && *one_run < kLightRun;
    plan_.depth = config_.depth != 0 ? config_.depth : is_light && fixed ? 1 : kHeavyDepth;
    plan_.on_callers_thread = plan_.depth == 1 && fixed;
    const int streams = config_.device == "CPU" ? streams_of(model) : 1;
    if (spec_.instance_count <= 0 && streams_given_) plan_.instance_count = streams;
    if (config_.device != "CPU" || is_light) return;
    const int threads = model.get_property(ov::inference_num_threads);
    plan_.threads_of_run = std::max((threads + streams - 1) / streams, 1);
  }

  // Streams of a model for which nothing is said. The compiled model, when that took one.
  std::optional<ov::CompiledModel> decide_streams(const std::vector<std::int64_t>& sizes) {
    plan_.shape = reason_not_to_measure(sizes);
    if (!plan_.shape.empty()) return std::nullopt;
    TuneTask task{spec_.model,   {},        {}, resolved_.signature.max_batch_rows, threads_, nodes(),
                  kReadFraction, &progress_};
    key_ = task.key = tune_key(*model_, options_in_words(), threads_);
    task.compile = [&](int streams) {
      plan_.instance_count = streams;
      return compile(sizes.front(), shared_properties());
    };
    Tuned tuned = tune_streams(task);
    plan_.instance_count = tuned.shape.streams;
    plan_.shape = in_words(tuned.shape.streams) + ", " + tuned.why +
                  (tuned.shape.measured.empty() ? "" : " (" + tuned.shape.measured + ")");
    most_rows_ = tuned.shape.most_rows;
    known_ = tuned.shape;
    settled_ = tuned.settled;
    if (tuned.measured) plan_.remembered = Remembered{key_, tuned.shape};
    return tuned.compiled;
  }

  // A compiled model for one row alone, where it has one.
  std::optional<ov::CompiledModel> decide_lone(const Compiled& shared) {
    constexpr const char* kOwn = "one row has a compiled model of its own";
    constexpr const char* kShared = "one row runs in the one for all";
    if (shared.rows != 0 || !lone_is_possible()) return std::nullopt;
    const std::string reason = reason_not_to_measure_lone();
    if (!reason.empty()) {
      const bool own = config_.prepared == Prepared::kLone;
      plan_.lone = std::string(own ? kOwn : kShared) + ", " + reason;
      return own ? std::optional(compile(1, shared_properties())) : std::nullopt;
    }
    find_known_lone();
    LoneFound found{known_.lone, known_.lone_measured, std::nullopt};
    std::string how = "from the cache (" + found.measured + ")";
    if (known_.lone == Lone::kUnknown) {
      found = measure_lone_row({spec_.model, shared.model,
                                [this](std::int64_t rows) { return compile(rows, shared_properties()); }});
      const bool measured = found.lone != Lone::kUnknown;
      how = measured ? "measured (" + found.measured + ")" : "not measured: " + found.measured;
      if (measured) remember_lone(found);
    }
    const bool own = found.lone == Lone::kOwn;
    plan_.lone = std::string(own ? kOwn : kShared) + ", " + how;
    if (own && !found.compiled) return compile(1, shared_properties());
    return std::move(found.compiled);
  }

  bool lone_is_possible() const {
    if (!resolved_.signature.batches() || resolved_.signature.max_batch_rows == 1) return false;
    if (config_.prepared == Prepared::kDynamic || config_.device != "CPU") return false;
    return spec_.allowed_rows.empty() || spec_.allowed_rows.front() == 1;
  }

  // "" when a measurement decides.
  std::string reason_not_to_measure_lone() const {
    if (config_.prepared == Prepared::kLone) return "by prepared";
    if (!fixed_shapes(1)) return "free dimensions";
    if (plan_.weights_bytes > kMostLoneWeightsBytes) {
      return "its weights of " + std::to_string(plan_.weights_bytes >> 20) + " MB are too many to hold twice";
    }
    if (plan_.one_run == 0) return "zeros are no input for it";
    if (plan_.one_run > kLongestLoneRun) return "its runs are too long for it to matter";
    if (!config_.tune.value_or(tune_settings().at_load)) return "not measured: tune is off";
    return {};
  }

  // What is kept of a model whose streams the configuration pins is this alone.
  void find_known_lone() {
    if (!key_.empty()) return;
    key_ = tune_key(*model_, options_in_words() + " pinned_streams=" + std::to_string(plan_.instance_count),
                    threads_);
    const auto kept = TuneCache(tune_settings().cache_directory).find(key_);
    known_ = kept.value_or(TunedShape{plan_.instance_count, 0, {}, Lone::kUnknown, {}});
  }

  // Streams that were not measured to the end are not kept, and so nothing is.
  void remember_lone(const LoneFound& found) {
    known_.lone = found.lone;
    known_.lone_measured = found.measured;
    if (settled_) plan_.remembered = Remembered{key_, known_};
  }

  // "" when the number of streams is to be measured.
  std::string reason_not_to_measure(const std::vector<std::int64_t>& sizes) const {
    if (config_.device != "CPU") return "the device's own";
    for (const char* name : {"PERFORMANCE_HINT", "NUM_STREAMS", "INFERENCE_NUM_THREADS"}) {
      if (config_.has(name)) return std::string("by ") + name;
    }
    if (spec_.instance_count > 0) return in_words(plan_.instance_count) + ", by instance_group";
    const std::string one = in_words(1) + ", not measured: ";
    if (!config_.tune.value_or(tune_settings().at_load)) return one + "tune is off";
    if (sizes.size() > 1) return one + "each size is compiled by itself (prepared: static)";
    if (OpenVinoShapes::needed(resolved_.signature)) return one + "free dimensions, so no input is typical";
    return {};
  }

  static std::string in_words(int streams) {
    return std::to_string(streams) + (streams == 1 ? " stream" : " streams");
  }

  std::string options_in_words() const {
    std::string text;
    for (const auto& [name, value] : config_.properties) text += name + "=" + value.as<std::string>() + " ";
    return text + "max_rows=" + std::to_string(resolved_.signature.max_batch_rows);
  }

  void decide_sizes(bool prepared) {
    if (!resolved_.signature.batches()) return;
    plan_.pads = prepared || !spec_.allowed_rows.empty();
    plan_.rows = spec_.allowed_rows.empty()
                     ? prepared_sizes(resolved_.signature.max_batch_rows, prepared ? 0 : most_rows_)
                     : spec_.allowed_rows;
  }

  // 0: one for any number of rows.
  std::vector<std::int64_t> compiled_sizes(bool prepared) const {
    if (!prepared) return {0};
    return spec_.allowed_rows.empty() ? prepared_sizes(resolved_.signature.max_batch_rows)
                                      : spec_.allowed_rows;
  }

  // CPUs of the configuration's instances together. OpenVINO takes no list of CPUs for its threads, only a number; and threads
  // that were bound from outside would stay so for other models, because it uses them again.
  void narrow_threads() {
    std::set<int> cpus;
    for (const std::vector<int>& of_instance : pinned_) {
      if (of_instance.empty()) return;  // one that may run anywhere
      cpus.insert(of_instance.begin(), of_instance.end());
    }
    if (!cpus.empty()) threads_ = std::min(threads_, static_cast<int>(cpus.size()));
  }
  int nodes() const { return std::max(static_cast<int>(nodes_.size()), 1); }

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
    properties.emplace("ENABLE_CPU_PINNING", "NO");
    return properties;
  }

  ov::AnyMap shared_properties() const {
    ov::AnyMap properties = config_.properties;
    if (config_.device != "CPU") return properties;
    if (!streams_given_) properties.emplace("NUM_STREAMS", std::to_string(plan_.instance_count));
    properties.emplace("INFERENCE_NUM_THREADS", std::to_string(threads_));
    properties.emplace("ENABLE_CPU_PINNING", nodes_.size() > 1 ? "YES" : "NO");
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
  const LoadSpec& spec_;
  const Progress& progress_;
  int threads_;
  bool streams_given_ = false;
  std::vector<NumaNode> nodes_;
  std::vector<std::vector<int>> pinned_;  // by the configuration, for each instance
  std::int64_t most_rows_ = 0;            // known from a former load; 0: not
  std::string key_;                       // of the cache; "": not asked yet
  TunedShape known_;                      // from the cache or measured just now
  bool settled_ = true;                   // its streams
  std::size_t steps_ = 1;
  std::size_t done_ = 0;
  CompiledPlan plan_;
};

}  // namespace

Result<CompiledPlan> compile_openvino(ov::Core& core, const std::shared_ptr<ov::Model>& model,
                                      const OpenVinoSignature& resolved, const OpenVinoConfig& config,
                                      const LoadSpec& spec, const Progress& progress) {
  auto plan = openvino_guarded(Code::kInternal, "compiling for " + config.device,
                               [&] { return Compiler(core, model, resolved, config, spec, progress).run(); });
  if (!plan.is_ok() && plan.status().code() == Code::kInternal) {
    FS_RETURN_IF_ERROR(blame_property(core, config));
  }
  return plan;
}

std::vector<std::int64_t> prepared_sizes(std::int64_t max_rows, std::int64_t most) {
  const std::int64_t last = most > 0 ? std::min(most, max_rows) : max_rows;
  std::vector<std::int64_t> sizes;
  for (std::int64_t rows = 1; rows < last; rows *= 2) sizes.push_back(rows);
  sizes.push_back(last);
  return sizes;
}

}  // namespace fastserve
