// The published table: which versions may be used now. Immutable; a load or unload publishes another one. A submitter caches
// it and compares one generation number for each request (engine/engine_impl.h).
// Thread: any.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "model/model_version.h"

namespace fastserve {

class VersionTable {
 public:
  struct Versions {
    std::vector<std::shared_ptr<ModelVersion>> ready;  // ascending by number
    std::vector<std::int64_t> known;                   // all numbers, ready or not
  };

  void add_known(const std::string& model, std::int64_t version);
  void add_ready(std::shared_ptr<ModelVersion> version);  // in ascending order of its number
  void refuse_all() { refuses_ = true; }                  // the engine drains

  // The version that a request names; "" and "-1" = the highest ready one. Not retained: try_begin_request or try_retain it.
  // NOT_FOUND, UNAVAILABLE and INVALID_ARGUMENT in Triton's words (engine/engine.h: resolve).
  Result<ModelVersion*> find(std::string_view model, std::string_view version) const;

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  std::unordered_map<std::string, Versions, Hash, std::equal_to<>> models_;
  bool refuses_ = false;
};

}  // namespace fastserve
