// The published table: which versions may be used now, and what labels stand for. Immutable; a load, an unload or a change of
// labels publishes another one, which shares what it has of other models. A submitter caches it and compares one generation
// number for each request (engine/engine_impl.h).
// Thread: any.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/model_version.h"
#include "model/version_label.h"

namespace fastserve {

// What a label stands for: those of its versions that are ready and have a weight. The others' share goes to these.
struct LabelRoute {
  struct Share {
    ModelVersion* version = nullptr;
    std::size_t target = 0;  // of the label's spec
    std::uint64_t end = 0;   // of its part of 0..total
  };
  LabelRoute(std::shared_ptr<VersionLabel> label, const std::vector<std::shared_ptr<ModelVersion>>& ready);

  // Whoever holds `bits` stays where he is while the weights stay, and moves only towards what gains weight when two versions
  // share the label. Else by turns: n requests give each version n * weight / total, one more or less.
  const Share& choose(std::optional<std::uint64_t> bits, unsigned shard) const;
  const Share& heaviest() const;

  std::shared_ptr<VersionLabel> label;
  std::vector<Share> shares;  // ascending by version; empty: none is ready
  std::uint64_t total = 0;    // of the weights, divided by their greatest common divisor
  std::uint64_t step = 0;     // between the places of two turns; prime to `total`
};

// One model as it is published.
struct PublishedModel {
  std::string name;
  std::vector<std::shared_ptr<ModelVersion>> ready;  // ascending by number
  std::vector<std::int64_t> known;                   // all numbers, ready or not
  std::vector<LabelRoute> labels;                    // ascending by name
  const LabelRoute* unnamed = nullptr;  // of requests that name no version; nullptr: the highest ready one

  void set_labels(const std::vector<std::shared_ptr<VersionLabel>>& given);  // once, when `ready` is complete
  const LabelRoute* find_label(std::string_view name) const;
  Result<ModelVersion*> find(std::string_view version) const;  // as VersionTable::find
};

class VersionTable {
 public:
  // --- while it is made
  void put(std::shared_ptr<const PublishedModel> model);  // in the place of one of that name
  void remove(std::string_view model);
  void refuse_all() { refuses_ = true; }  // the engine drains

  // --- published. Versions are not retained: try_begin_request or try_retain them.
  struct Chosen {
    ModelVersion* version = nullptr;
    std::atomic<std::uint64_t>* requests = nullptr;  // of the label: count one up; nullptr: by no label
  };
  // The version for a request; `shard`: the submitter's number. Errors as find has them. Allocates nothing where it succeeds.
  Result<Chosen> choose(const Request& request, unsigned shard) const;
  // The version that is named: by number, by label (of several the one with most weight); "" and "-1" = the label "default",
  // else the highest ready one. NOT_FOUND, UNAVAILABLE and INVALID_ARGUMENT in Triton's words (engine/engine.h: resolve);
  // FAILED_PRECONDITION for a label none of whose versions is ready.
  Result<ModelVersion*> find(std::string_view model, std::string_view version) const;

 private:
  Result<const PublishedModel*> find_model(std::string_view model) const;
  std::size_t place_of(std::string_view model) const;  // where it stands, or the free place where it would
  void grow(std::size_t places);

  std::vector<std::shared_ptr<const PublishedModel>>
      places_;  // open addressing; a power of two, half of it free
  std::size_t count_ = 0;
  bool refuses_ = false;
};

}  // namespace fastserve
