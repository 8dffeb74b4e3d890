#include "model/version_label.h"

#include <algorithm>
#include <set>
#include <type_traits>
#include <variant>

#include "batch/request.h"

namespace fastserve {
namespace {

constexpr std::size_t kEchoBytes = 128;

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string field_of(const LabelSpec& label) {
  return "labels[\"" + label.name.substr(0, kEchoBytes) + "\"]";
}

Status check_targets(const LabelSpec& label) {
  if (label.targets.empty()) return invalid_argument(field_of(label) + ": names no version");
  if (label.targets.size() > kMaxLabelVersions) {
    return invalid_argument(field_of(label) + ": got " + std::to_string(label.targets.size()) +
                            " versions, want " + std::to_string(kMaxLabelVersions) + " or fewer");
  }
  std::set<std::int64_t> versions;
  std::int64_t total = 0;
  for (const LabelTarget& target : label.targets) {
    const auto version = std::to_string(target.version);
    if (target.version < 0) return invalid_argument(field_of(label) + ": got version " + version);
    if (!versions.insert(target.version).second) {
      return invalid_argument(field_of(label) + ": names version " + version + " twice");
    }
    if (target.weight < 0 || target.weight > kMaxLabelWeight) {
      return invalid_argument(field_of(label) + "[" + version + "]: got weight " +
                              std::to_string(target.weight) + ", want a whole number from 0 to " +
                              std::to_string(kMaxLabelWeight));
    }
    total += target.weight;
  }
  if (total == 0) return invalid_argument(field_of(label) + ": all weights are 0");
  return Status::ok();
}

// FNV-1a, then the finalizer of splitmix64: keys that differ in one digit are spread over all bits.
class Mixer {
 public:
  void add(const void* from, std::size_t bytes) {
    const auto* at = static_cast<const unsigned char*>(from);
    for (std::size_t i = 0; i < bytes; ++i) bits_ = (bits_ ^ at[i]) * 0x100000001b3U;
  }
  std::uint64_t value() const {
    std::uint64_t x = bits_;
    x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27U)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31U);
  }

 private:
  std::uint64_t bits_ = 0xcbf29ce484222325U;
};

// None for 0 and "", which both mean that there is no such thing. A number and its text are the same key, as for clients that
// send it over REST and gRPC.
std::optional<std::uint64_t> bits_of(const Parameter& parameter) {
  return std::visit(
      [](const auto& value) -> std::optional<std::uint64_t> {
        using T = std::decay_t<decltype(value)>;
        Mixer mixer;
        if constexpr (std::is_same_v<T, std::string_view>) {
          if (value.empty()) return std::nullopt;
          mixer.add(value.data(), value.size());
        } else if constexpr (std::is_same_v<T, double>) {
          mixer.add(&value, sizeof(value));
        } else {
          if (value == T{}) return std::nullopt;
          const std::string text = std::to_string(value);  // of at most 20 characters
          mixer.add(text.data(), text.size());
        }
        return mixer.value();
      },
      parameter.value);
}

}  // namespace

bool is_label_name(std::string_view text) {
  return !text.empty() && text.size() <= kMaxLabelChars && is_letter(text.front()) &&
         std::ranges::all_of(
             text, [](char c) { return is_letter(c) || is_digit(c) || c == '.' || c == '_' || c == '-'; });
}

Status check_labels(const std::vector<LabelSpec>& labels) {
  if (labels.size() > kMaxLabels) {
    return {Code::kResourceExhausted, "labels: got " + std::to_string(labels.size()) + " for a model, want " +
                                          std::to_string(kMaxLabels) + " or fewer"};
  }
  std::set<std::string_view> names;
  for (const LabelSpec& label : labels) {
    if (!is_label_name(label.name)) {
      return invalid_argument(field_of(label) + ": want a letter, then letters, digits, '.', '_' or '-', " +
                              std::to_string(kMaxLabelChars) + " in all or fewer");
    }
    if (!names.insert(label.name).second) return invalid_argument(field_of(label) + ": given twice");
    FS_RETURN_IF_ERROR(check_targets(label));
  }
  return Status::ok();
}

std::optional<std::uint64_t> routing_bits(const Request& request) {
  std::optional<std::uint64_t> found;
  for (const Parameter& parameter : request.parameters) {
    if (parameter.name == "sequence_id") {
      if (const auto bits = bits_of(parameter)) return bits;
    } else if (parameter.name == "routing_key") {
      found = bits_of(parameter);
    }
  }
  return found;
}

VersionLabel::VersionLabel(LabelSpec spec, const VersionLabel* before)
    : spec_([&] {
        std::ranges::sort(spec.targets, {}, &LabelTarget::version);
        return std::move(spec);
      }()) {
  // Else every thread's first request would go to the same version.
  for (unsigned shard = 0; shard < kShards; ++shard) turns_[shard].value = shard * 0x9e3779b1U;
  for (const LabelTarget& target : spec_.targets) {
    std::shared_ptr<Cells> kept;
    for (std::size_t i = 0; before != nullptr && i < before->counts_.size(); ++i) {
      if (before->spec_.targets[i].version == target.version) kept = before->counts_[i];
    }
    counts_.push_back(kept ? std::move(kept) : std::make_shared<Cells>());
  }
}

std::uint64_t VersionLabel::requests(std::size_t target) const {
  std::uint64_t sum = 0;
  for (const Cell& cell : *counts_[target]) sum += cell.value.load(std::memory_order_relaxed);
  return sum;
}

}  // namespace fastserve
