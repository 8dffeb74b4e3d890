#include "backend/identity.h"

#include <time.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "backend/allowed_rows.h"

namespace fastserve {
namespace {

// ---- 3. the instance: runs batches ----------------------------------------------------------------------------------

struct Timing {
  Nanos delay_ns = 0;
  Nanos burn_ns = 0;
};

void wait_for(Nanos ns) {
  const Nanos until = monotonic_now() + ns;
  timespec at{};
  at.tv_sec = static_cast<time_t>(until / kSecond);
  at.tv_nsec = static_cast<long>(until % kSecond);
  while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) == EINTR) {
  }
}

void compute_for(Nanos ns) {
  const Nanos until = monotonic_now() + ns;
  volatile std::uint64_t sink = 1;
  while (monotonic_now() < until) {
    for (int i = 0; i < 64; ++i) sink = sink * 6364136223846793005U + 1442695040888963407U;
  }
}

class IdentityInstance final : public BackendInstance {
 public:
  explicit IdentityInstance(Timing timing) : timing_(timing) {}

  // start() returns when the batch is done, so a second one could not overlap with it.
  int depth() const override { return 1; }

  void start(Batch& batch) override {
    if (timing_.delay_ns != 0) wait_for(timing_.delay_ns);
    if (timing_.burn_ns != 0) compute_for(timing_.burn_ns);
    for (std::size_t i = 0; i < batch.outputs().size(); ++i) {
      const BatchTensor& input = batch.inputs()[i];
      // A copy, never a view of the input: a bound input belongs to the request, and responses may outlive it.
      std::byte* memory = batch.output_memory(i, input.bytes);
      if (memory == nullptr) {
        return batch.finish({Code::kResourceExhausted, "no memory for output " + std::to_string(i)});
      }
      if (input.bytes != 0) std::memcpy(memory, input.data, input.bytes);
      batch.set_output(i, input.dtype, input.shape, memory, input.bytes);
    }
    batch.finish(Status::ok());  // exactly once; the batch is not ours any more
  }

 private:
  const Timing timing_;
};

// ---- 2. the loaded model: one version, from which instances are made --------------------------------------------------

class IdentityModel final : public LoadedModel {
 public:
  IdentityModel(Signature signature, int instance_count, std::vector<std::int64_t> buckets, Timing timing)
      : signature_(std::move(signature)),
        instance_count_(instance_count),
        buckets_(std::move(buckets)),
        timing_(timing) {}

  const Signature& signature() const override { return signature_; }
  int instance_count() const override { return instance_count_; }
  // None: any number of rows runs as it is.
  std::span<const std::int64_t> buckets() const override { return buckets_; }
  Result<std::unique_ptr<BackendInstance>> make_instance(int /*index*/) override {
    return std::unique_ptr<BackendInstance>(std::make_unique<IdentityInstance>(timing_));
  }
  std::map<std::string, std::string> properties() const override { return {{"device", "CPU"}}; }
  std::string_view platform() const override { return "identity"; }

 private:
  const Signature signature_;
  const int instance_count_;
  const std::vector<std::int64_t> buckets_;
  const Timing timing_;
};

// ---- 1. the backend: checks the LoadSpec and loads --------------------------------------------------------------------

Status read_microseconds(const std::string& name, const std::string& text, Nanos& out_ns) {
  constexpr std::int64_t kMostMicroseconds = 3'600'000'000;  // an hour
  std::int64_t us = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), us);
  if (error != std::errc() || end != text.data() + text.size() || us < 0 || us > kMostMicroseconds) {
    return invalid_argument("parameters[\"" + name + "\"]: got \"" + text +
                            "\", want a whole number from 0 to " + std::to_string(kMostMicroseconds) +
                            " (microseconds)");
  }
  out_ns = us * kMicrosecond;
  return Status::ok();
}

Result<Timing> read_timing(const std::map<std::string, std::string>& parameters) {
  Timing timing;
  for (const auto& [name, text] : parameters) {
    if (name == "execute_delay_us") {
      FS_RETURN_IF_ERROR(read_microseconds(name, text, timing.delay_ns));
    } else if (name == "execute_burn_us") {
      FS_RETURN_IF_ERROR(read_microseconds(name, text, timing.burn_ns));
    } else {
      return invalid_argument("parameters[\"" + name +
                              "\"]: unknown to backend 'identity', want execute_delay_us or execute_burn_us");
    }
  }
  return timing;
}

Status check_batch_dimension(const TensorSpec& spec, const std::string& field, const Signature& signature) {
  if (!signature.batches() || (!spec.shape.empty() && spec.shape[0] == -1)) return Status::ok();
  return invalid_argument(field + ".shape: got " + spec.shape.str() + ", want -1 (rows) in front, because " +
                          "max_batch_rows is " + std::to_string(signature.max_batch_rows));
}

Status check_pair(const TensorSpec& input, const TensorSpec& output, const Signature& signature) {
  const std::string in = "inputs[\"" + input.name + "\"]";
  const std::string out = "outputs[\"" + output.name + "\"]";
  FS_RETURN_IF_ERROR(check_batch_dimension(input, in, signature));
  if (input.optional)
    return invalid_argument(in + ".optional: got true, want false: output " + output.name + " needs it");
  if (input.dtype != output.dtype) {
    return invalid_argument(out + ".datatype: got " + std::string(dtype_name(output.dtype)) + ", want " +
                            std::string(dtype_name(input.dtype)) + " as " + in);
  }
  if (input.shape == output.shape) return Status::ok();
  return invalid_argument(out + ".shape: got " + output.shape.str() + ", want " + input.shape.str() + " as " +
                          in);
}

Status check_signature(const Signature& signature) {
  if (signature.inputs.empty() || signature.outputs.empty()) {
    return invalid_argument(
        std::string(signature.inputs.empty() ? "inputs" : "outputs") +
        ": got none; backend 'identity' has no model file to take them from, so the configuration "
        "must name them");
  }
  if (signature.inputs.size() != signature.outputs.size()) {
    return invalid_argument("outputs: got " + std::to_string(signature.outputs.size()) + ", want " +
                            std::to_string(signature.inputs.size()) + ", one for each input");
  }
  for (std::size_t i = 0; i < signature.inputs.size(); ++i) {
    FS_RETURN_IF_ERROR(check_pair(signature.inputs[i], signature.outputs[i], signature));
  }
  return Status::ok();
}

class IdentityBackend final : public Backend {
 public:
  std::string_view name() const override { return "identity"; }

  Result<std::unique_ptr<LoadedModel>> load(const LoadSpec& spec, const Progress& /*progress*/) override {
    FS_ASSIGN_OR_RETURN(const Timing timing, read_timing(spec.parameters));
    // Not said (-1) means no batch dimension: there is no file that could tell.
    const std::int64_t max_rows = std::max<std::int64_t>(wanted_batch_rows(spec), 0);
    Signature signature{spec.inputs, spec.outputs, max_rows};
    FS_RETURN_IF_ERROR(check_signature(signature));
    FS_RETURN_IF_ERROR(check_allowed_rows(spec, max_rows));
    if (spec.instance_count < 0) {
      return invalid_argument("instance_count: got " + std::to_string(spec.instance_count) +
                              ", want 0 or more");
    }
    const int instances = spec.instance_count == 0 ? 1 : spec.instance_count;
    return std::unique_ptr<LoadedModel>(
        std::make_unique<IdentityModel>(std::move(signature), instances, spec.allowed_rows, timing));
  }
};

}  // namespace

Backend& identity_backend() {
  static IdentityBackend backend;
  return backend;
}

}  // namespace fastserve
