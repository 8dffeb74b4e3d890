#include "backend/cuda_counts.h"

#include <map>
#include <mutex>

#include "backend/cuda_fault.h"

namespace fastserve {
namespace {

struct Counted {
  std::string uuid;
  CudaCounts counts;
};
struct AllCounts {
  std::mutex mutex;
  std::map<int, Counted> by_device;  // nothing leaves
};
AllCounts& all_counts() {
  static auto* held = new AllCounts;
  return *held;
}

std::uint64_t read(const std::atomic<std::uint64_t>& counter) {
  return counter.load(std::memory_order_relaxed);
}

}  // namespace

std::vector<CudaCountsRow> cuda_counts() {
  const std::lock_guard lock(all_counts().mutex);
  std::vector<CudaCountsRow> rows;
  for (const auto& [device, counted] : all_counts().by_device) {
    const CudaCounts& counts = counted.counts;
    rows.push_back({device, counted.uuid, !device_fault_of(counted.uuid).status.is_ok(),
                    read(counts.graph_batches), read(counts.fallback_batches), read(counts.failed_batches),
                    read(counts.in_place_copies), read(counts.unpinned_copies)});
  }
  return rows;
}

CudaCounts& cuda_counts_of(int device, const std::string& uuid) {
  const std::lock_guard lock(all_counts().mutex);
  Counted& counted = all_counts().by_device[device];
  counted.uuid = uuid;
  return counted.counts;
}

}  // namespace fastserve
