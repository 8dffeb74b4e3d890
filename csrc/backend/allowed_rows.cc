#include "backend/allowed_rows.h"

#include <string>

namespace fastserve {

Status check_allowed_rows(const LoadSpec& spec, std::int64_t max_rows) {
  const auto& allowed = spec.allowed_rows;
  if (allowed.empty()) return Status::ok();
  if (max_rows <= 0) {
    return invalid_argument("allowed_batch_sizes: got " + std::to_string(allowed.size()) +
                            " sizes for a model that does not batch");
  }
  for (std::size_t i = 0; i < allowed.size(); ++i) {
    const std::int64_t least = i == 0 ? 1 : allowed[i - 1] + 1;
    if (allowed[i] >= least) continue;
    return invalid_argument("allowed_batch_sizes[" + std::to_string(i) + "]: got " +
                            std::to_string(allowed[i]) + ", want " + std::to_string(least) +
                            " or more (ascending)");
  }
  if (allowed.back() == max_rows) return Status::ok();
  return invalid_argument("allowed_batch_sizes[" + std::to_string(allowed.size() - 1) + "]: got " +
                          std::to_string(allowed.back()) + ", want " + std::to_string(max_rows) +
                          ", because the last one is the model's batch size");
}

std::int64_t wanted_batch_rows(const LoadSpec& spec) {
  return spec.max_batch_rows < 0 && !spec.allowed_rows.empty() ? spec.allowed_rows.back()
                                                               : spec.max_batch_rows;
}

}  // namespace fastserve
