#include "backend/cuda_version.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "backend/cuda_fault.h"
#include "backend/guard.h"
#include "base/checked.h"

namespace fastserve {
namespace {

std::string text_of(const LoadSpec& spec) {
  return "model '" + spec.model + "' version " + std::to_string(spec.version);
}

// Of the file, or of the files in the directory: what the weights will take at least.
std::uint64_t file_bytes(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_regular_file(path, error)) return std::filesystem::file_size(path, error);
  std::uint64_t sum = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
    if (entry.is_regular_file(error)) sum += entry.file_size(error);
  }
  return sum;
}

TensorBytes bytes_of(const TensorSpec& spec, bool batches) {
  const auto bytes = spec.shape.byte_count_from(spec.dtype, batches ? 1 : 0);
  return {bytes.has_value(), bytes.value_or(0)};
}

Status check_tensor(const TensorSpec& spec, const std::string& field, bool batches) {
  if (spec.dtype == DType::kBytes)
    return unimplemented(field + ".datatype: got BYTES, which no GPU model takes");
  if (spec.optional) return unimplemented(field + ".optional: got true, want false for a GPU model");
  if (!batches || (!spec.shape.empty() && spec.shape[0] == -1)) return Status::ok();
  return invalid_argument(field + ".shape: got " + spec.shape.str() +
                          ", want -1 (rows) in front, because the model batches");
}

Status check_buckets(std::span<const std::int64_t> buckets, std::int64_t most_rows) {
  for (std::size_t i = 0; i < buckets.size(); ++i) {
    const std::int64_t least = i == 0 ? 1 : buckets[i - 1] + 1;
    if (buckets[i] < least || buckets[i] > most_rows) {
      return invalid_argument("buckets[" + std::to_string(i) + "]: got " + std::to_string(buckets[i]) +
                              ", want " + std::to_string(least) + " to " + std::to_string(most_rows));
    }
  }
  if (buckets.empty() || buckets.back() == most_rows) return Status::ok();
  return invalid_argument("buckets: the last one is " + std::to_string(buckets.back()) + ", want " +
                          std::to_string(most_rows) + ", the batch size");
}

std::uint64_t saturated_product(std::uint64_t a, std::uint64_t b) {
  std::size_t product = 0;
  return checked_mul(a, b, product) ? product : UINT64_MAX;
}

std::uint64_t sum_of_rows(const std::vector<TensorBytes>& tensors) {
  std::uint64_t sum = 0;
  for (const TensorBytes& tensor : tensors) sum += tensor.row_bytes;
  return sum;
}

}  // namespace

CudaVersion::CudaVersion(std::shared_ptr<CudaDevice> device, const LoadSpec& spec,
                         const CudaSettings& settings, int lanes)
    : device_(std::move(device)), settings_(settings), text_(text_of(spec)), lanes_(lanes) {}

Result<std::shared_ptr<CudaVersion>> CudaVersion::open(std::shared_ptr<CudaDevice> device,
                                                       GraphSource& source, const LoadSpec& spec,
                                                       const CudaSettings& settings, int lanes,
                                                       const Progress& progress) {
  FS_ASSIGN_OR_RETURN(DeviceLedger* const ledger, open_device_ledger(device->ordinal()));
  const auto made = std::shared_ptr<CudaVersion>(new CudaVersion(std::move(device), spec, settings, lanes));
  FS_ASSIGN_OR_RETURN(made->claim_, ledger->admit(made->text_, {.weights = file_bytes(spec.path)}));
  const std::uint64_t free_before = ledger->free_bytes().value_or(0);
  const GraphLoad load{
      spec,    made->device().ordinal(), made->device().uuid(), made->device().name(), lanes, settings.graphs,
      progress};
  FS_ASSIGN_OR_RETURN(made->graph_, guarded("opening " + made->text_, [&] { return source.open(load); }));
  made->free_after_open_ = ledger->free_bytes().value_or(0);
  FS_RETURN_IF_ERROR(made->check_model());
  FS_RETURN_IF_ERROR(made->claim(free_before));
  return made;
}

CudaVersion::~CudaVersion() {
  if (graph_ == nullptr) return;
  if (device_->lost()) {
    keep_for_ever(std::shared_ptr<GraphModel>(std::move(graph_)));
    return;
  }
  const CudaDevice::Current current(*device_);
  graph_->close();
  graph_.reset();
}

Status CudaVersion::check_model() {
  const Signature& signature = graph_->signature();
  bool fixed = true;
  for (const bool out : {false, true}) {
    const std::vector<TensorSpec>& specs = out ? signature.outputs : signature.inputs;
    std::vector<TensorBytes>& bytes = out ? outputs_ : inputs_;
    const std::string list = out ? "outputs" : "inputs";
    if (specs.empty()) return invalid_argument(list + ": got none");
    for (const TensorSpec& spec : specs) {
      FS_RETURN_IF_ERROR(check_tensor(spec, list + "[\"" + spec.name + "\"]", signature.batches()));
      bytes.push_back(bytes_of(spec, signature.batches()));
      fixed = fixed && bytes.back().fixed;
    }
  }
  FS_RETURN_IF_ERROR(check_buckets(graph_->buckets(), most_rows()));
  buckets_.assign(graph_->buckets().begin(), graph_->buckets().end());
  if (buckets_.empty() && !signature.batches()) buckets_ = {1};
  if (!fixed && !graph_->buckets().empty() && signature.batches()) {
    return invalid_argument(
        "buckets: got some, want none for a model with free dimensions beside the rows, of which nothing can "
        "be "
        "captured");
  }
  return Status::ok();
}

Status CudaVersion::claim(std::uint64_t free_before) {
  const std::uint64_t measured = free_before > free_after_open_ ? free_before - free_after_open_ : 0;
  const auto rows = static_cast<std::uint64_t>(most_rows());
  const auto lanes = static_cast<std::uint64_t>(lanes_);
  DeviceNeeds needs = claim_.needs();
  needs.weights = graph_->weights_bytes() != 0 ? graph_->weights_bytes() : measured;
  needs.activations = saturated_product(lanes, graph_->lane_scratch_bytes());
  const std::uint64_t row_bytes = (graph_->owns_inputs() ? 0 : sum_of_rows(inputs_)) +
                                  (graph_->owns_outputs() ? 0 : sum_of_rows(outputs_));
  needs.buffers = saturated_product(saturated_product(lanes, rows), row_bytes);
  return claim_.ask(needs);
}

void CudaVersion::settle() {
  DeviceNeeds needs = claim_.needs();
  const Result<DeviceLedger*> ledger = open_device_ledger(device_->ordinal());
  const std::uint64_t free = ledger.is_ok() ? ledger.value()->free_bytes().value_or(0) : 0;
  const std::uint64_t counted = needs.activations + needs.buffers;
  if (free != 0 && free_after_open_ > free + counted) needs.graphs = free_after_open_ - free - counted;
  claim_.settle(needs);
}

}  // namespace fastserve
