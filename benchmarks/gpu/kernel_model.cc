#include "gpu/kernel_model.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace fastserve::gpu_rows {
namespace {

constexpr unsigned kThreads = 256;
constexpr std::uint64_t kMostBlocks = 1024;

// What the driver or a row throws, as a status.
template <class Call>
auto guarded(Call&& call) -> decltype(call()) {
  try {
    return call();
  } catch (const std::exception& error) {
    return Status{Code::kInternal, error.what()};
  }
}

class KernelModel final : public GraphModel {
 public:
  explicit KernelModel(KernelModelSpec spec) : spec_(std::move(spec)), kernels_(spec_.kernels) {
    signature_.max_batch_rows = spec_.sizes.back();
    signature_.inputs.push_back({"x", DType::kFp32, Shape{-1, spec_.columns}, false});
    signature_.outputs.push_back({"y", DType::kFp32, Shape{-1, spec_.out_columns}, false});
    if (spec_.weights_bytes != 0) weights_ = std::make_unique<DeviceBytes>(spec_.weights_bytes);
  }

  const Signature& signature() const override { return signature_; }
  std::span<const std::int64_t> buckets() const override { return spec_.sizes; }
  std::size_t weights_bytes() const override { return spec_.weights_bytes; }
  std::string_view platform() const override { return "kernels"; }

  Result<Captured> capture(const LaneMemory& memory, std::int64_t rows) override {
    return guarded([&]() -> Result<Captured> {
      auto chain = std::make_unique<Chain>();
      add_nodes(*chain, kernels_, spec_, rows, memory.inputs.front(), memory.outputs.front());
      Captured captured;
      captured.graph = reinterpret_cast<GraphHandle>(chain->graph());
      chains_.push_back(std::move(chain));
      return captured;
    });
  }

  Result<std::vector<DeviceTensor>> run(const LaneMemory& /*memory*/, std::int64_t /*rows*/,
                                        std::span<const DeviceTensor> /*inputs*/) override {
    return Status{Code::kInternal, "every size has a graph"};
  }

 private:
  const KernelModelSpec spec_;
  const Kernels kernels_;
  Signature signature_;
  std::unique_ptr<DeviceBytes> weights_;
  std::vector<std::unique_ptr<Chain>> chains_;  // one for each lane and size
};

class KernelSource final : public GraphSource {
 public:
  explicit KernelSource(KernelModelSpec spec) : spec_(std::move(spec)) {}
  std::string_view name() const override { return "kernels"; }
  Result<std::unique_ptr<GraphModel>> open(const GraphLoad& /*load*/) override {
    return guarded([&]() -> Result<std::unique_ptr<GraphModel>> {
      return std::unique_ptr<GraphModel>(std::make_unique<KernelModel>(spec_));
    });
  }

 private:
  const KernelModelSpec spec_;
};

}  // namespace

void add_nodes(Chain& chain, const Kernels& kernels, const KernelModelSpec& spec, std::int64_t rows,
               CUdeviceptr input, CUdeviceptr output) {
  const CUfunction spin = spec.node_ns != 0 ? kernels.find("spin") : nullptr;
  std::uint64_t ns = spec.node_ns;
  void* spin_parameters[] = {&ns};
  for (int i = 0; i < spec.nodes; ++i) {
    if (spin != nullptr) {
      chain.add(spin, 1, 1, spin_parameters);
    } else {
      chain.add(kernels.get("nothing"), 1, 1, {});
    }
  }
  auto all = static_cast<std::uint64_t>(rows * spec.columns);
  if (spec.poison != 0) {
    if (const CUfunction poke = kernels.find("poke_if"); poke != nullptr) {
      float poison = spec.poison;
      void* poke_parameters[] = {&input, &all, &poison};
      chain.add(poke, 1, kThreads, poke_parameters);
    }
  }
  auto elements = static_cast<std::uint64_t>(rows * spec.out_columns);
  float factor = 2;
  void* parameters[] = {&output, &input, &elements, &factor};
  const auto blocks = static_cast<unsigned>(std::clamp<std::uint64_t>(elements / kThreads, 1, kMostBlocks));
  chain.add(kernels.get("scale"), blocks, kThreads, parameters);
}

std::unique_ptr<GraphSource> kernel_source(KernelModelSpec spec) {
  return std::make_unique<KernelSource>(std::move(spec));
}

}  // namespace fastserve::gpu_rows
