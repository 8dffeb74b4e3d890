// What the lanes of a device have done since the process started, for metrics and `explain`.
// Thread: any; relaxed counters.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace fastserve {

struct CudaCounts {
  std::atomic<std::uint64_t> graph_batches{0};     // ran as a graph
  std::atomic<std::uint64_t> fallback_batches{0};  // ran through GraphModel::run
  std::atomic<std::uint64_t> failed_batches{0};    // by an error that left the device alive
  std::atomic<std::uint64_t> in_place_copies{0};   // straight between clients' memory and the device
  std::atomic<std::uint64_t> unpinned_copies{
      0};  // of host memory that is not page-locked: the starting thread waits for them
};

struct CudaCountsRow {
  int device = 0;
  std::string uuid;
  bool lost = false;
  std::uint64_t graph_batches = 0;
  std::uint64_t fallback_batches = 0;
  std::uint64_t failed_batches = 0;
  std::uint64_t in_place_copies = 0;
  std::uint64_t unpinned_copies = 0;
};

// Of each device that a model was ever loaded on, by ordinal.
std::vector<CudaCountsRow> cuda_counts();
// The lane's: the counters of a device, which live for ever.
CudaCounts& cuda_counts_of(int device, const std::string& uuid);

}  // namespace fastserve
