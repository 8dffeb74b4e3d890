#include "model/warm_up.h"

#include <algorithm>
#include <vector>

#include "base/cpu_budget.h"
#include "base/log.h"
#include "model/plateau.h"
#include "model/run_alone.h"

namespace fastserve {
namespace {

// A request of zeros with so many rows. kBytes: empty elements, which are zero length prefixes.
struct ZeroRequest {
  Request request;
  std::vector<std::vector<std::byte>> data;
};

Status fill(const Signature& signature, std::int64_t rows, ZeroRequest& out) {
  out.request.rows = rows;
  for (std::size_t i = 0; i < signature.inputs.size(); ++i) {
    const TensorSpec& spec = signature.inputs[i];
    Shape shape = spec.shape;
    for (std::size_t d = 0; d < shape.rank(); ++d) {
      if (shape[d] < 0) shape[d] = d == 0 && signature.batches() ? rows : 1;
    }
    const auto bytes = shape.byte_count(spec.dtype == DType::kBytes ? DType::kUint32 : spec.dtype);
    if (!bytes)
      return invalid_argument("inputs[\"" + spec.name + "\"].shape: got " + shape.str() + ", too large");
    out.data.emplace_back(*bytes);
    out.request.inputs.push_back({spec.name, spec.dtype, shape, out.data.back()});
    out.request.input_order.push_back(static_cast<int>(i));
  }
  for (std::size_t i = 0; i < signature.outputs.size(); ++i)
    out.request.output_order.push_back(static_cast<int>(i));
  return Status::ok();
}

// `took`: from start to finish.
Status run_once(const Signature& signature, Instance& instance, std::int64_t rows, Nanos& took) {
  ZeroRequest zeros;
  FS_RETURN_IF_ERROR(fill(signature, rows, zeros));
  return run_alone(instance, zeros.request, took);
}

std::vector<std::int64_t> sizes(const Signature& signature, const std::vector<std::int64_t>& buckets) {
  if (!signature.batches()) return {1};
  if (!buckets.empty()) return {buckets.begin(), buckets.end()};
  if (signature.max_batch_rows == 1) return {1};
  return {1, signature.max_batch_rows};
}

// Whether zeros of the signature's shapes are certainly a valid request.
bool certain(const Signature& signature) { return uniform(signature); }

// Best of a few: the first run of a size prepares it, and others may use the machine meanwhile.
Status measure(const Signature& signature, Instance& instance, std::int64_t rows, Nanos& best) {
  constexpr int kRuns = 5;
  constexpr Nanos kEnough =
      150 * kMillisecond;  // together; the first run counts, a second one is always made
  best = kNever;
  Nanos spent = 0;
  for (int i = 0; i < kRuns && best > 0; ++i) {
    Nanos took = 0;
    FS_RETURN_IF_ERROR(run_once(signature, instance, rows, took));
    best = std::min(best, took);
    spent += took;
    if (took > kSecond || (i > 0 && spent > kEnough)) break;
  }
  return Status::ok();
}

}  // namespace

Status warm_up(const Signature& signature, bool may_drop, std::vector<std::int64_t>& buckets,
               std::span<const std::unique_ptr<Instance>> instances, const Progress& progress) {
  const PreparingScope preparing;  // serves nobody
  const std::vector<std::int64_t> all = sizes(signature, buckets);
  Plateau plateau;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::int64_t rows = all[i];
    progress(static_cast<double>(i) / static_cast<double>(all.size()),
             "warming " + std::to_string(rows) + (rows == 1 ? " row" : " rows"));
    Nanos took = 0;
    Status status;
    for (const auto& instance : instances) {
      status = measure(signature, *instance, rows, took);
      if (!status.is_ok()) break;
      instance->cost().record(rows, took);
    }
    if (!status.is_ok()) {
      const std::string what =
          "warm-up with " + std::to_string(rows) + " rows of zeros failed: " + status.message();
      if (certain(signature)) return {status.code(), what};
      log(LogLevel::kWarning,
          what + " (open dimensions were taken as 1, so the version is served all the same)");
    } else if (may_drop && !buckets.empty() && plateau.reached(rows, took)) {
      buckets.resize(i + 1);
      break;
    }
  }
  progress(1, "warm");
  return Status::ok();
}

}  // namespace fastserve
