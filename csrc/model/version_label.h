// A label of a model: a name for one version, or for several with weights (a canary: {3: 95, 4: 5}).
//
// What clients of TensorFlow Serving call a version label. A label may name versions that are not ready, or not there at all;
// it stands for those of them that are ready (model/version_table.h). The label named "default" is also for requests that
// name no version.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/cache_line.h"
#include "base/status.h"

namespace fastserve {

struct Request;

inline constexpr std::string_view kDefaultLabel = "default";
inline constexpr std::size_t kMaxLabels = 64;         // of a model
inline constexpr std::size_t kMaxLabelVersions = 16;  // of a label
inline constexpr std::size_t kMaxLabelChars = 64;
inline constexpr std::int64_t kMaxLabelWeight = 1'000'000;

struct LabelTarget {
  std::int64_t version = 0;
  std::int64_t weight = 1;  // 0: gets no request
  bool operator==(const LabelTarget&) const = default;
};

struct LabelSpec {
  std::string name;                  // [A-Za-z][A-Za-z0-9._-]*, at most kMaxLabelChars
  std::vector<LabelTarget> targets;  // each version once; not all weights 0
};

bool is_label_name(std::string_view text);

// INVALID_ARGUMENT that names label, field and value; RESOURCE_EXHAUSTED beyond kMaxLabels.
Status check_labels(const std::vector<LabelSpec>& labels);

// 64 well mixed bits of what keeps requests on one version: the parameter `sequence_id` (not 0, not ""), else `routing_key`
// (not ""). The same value gives the same bits in every process. None: the request may go anywhere.
std::optional<std::uint64_t> routing_bits(const Request& request);

// The label beside what it stands for now: whose turn it is, and what went where. Shared by the tables that are published
// while it lives; a submitter counts on a shard that it shares with few others.
// Thread: any.
class VersionLabel {
 public:
  static constexpr unsigned kShards = 8;
  struct alignas(kCacheLine) Cell {
    std::atomic<std::uint64_t> value{0};
  };
  using Cells = std::array<Cell, kShards>;

  // `before`: counts go on where a version stays.
  VersionLabel(LabelSpec spec, const VersionLabel* before);

  const LabelSpec& spec() const { return spec_; }
  // The number of a request on its shard. The shards begin at different places of the sequence.
  std::uint64_t take_turn(unsigned shard) {
    return turns_[shard % kShards].value.fetch_add(1, std::memory_order_relaxed);
  }
  std::atomic<std::uint64_t>& counter(std::size_t target, unsigned shard) {
    return (*counts_[target])[shard % kShards].value;
  }
  std::uint64_t requests(std::size_t target) const;

 private:
  const LabelSpec spec_;  // targets ascending by version
  Cells turns_;
  std::vector<std::shared_ptr<Cells>> counts_;  // one for each target
};

}  // namespace fastserve
