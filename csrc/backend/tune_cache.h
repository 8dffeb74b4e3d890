// What was measured for a model, kept in a folder: one small text file per key. A key names everything that the figures
// depend on (model, CPU, threads, OpenVINO, options), one `name value` per line; the file repeats it, so that neither a clash of
// hashes nor a file of somebody else is taken for an answer.
//
// Files are replaced in one step (rename), so readers see the old or the new one. What cannot be read counts as absent and is
// replaced by the next store.
// Thread: any; several processes may share a folder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace fastserve {

// Whether one row that comes alone gets a compiled model of its own (openvino_lone.h).
enum class Lone : std::uint8_t { kUnknown, kShared, kOwn };

struct TunedShape {
  int streams = 1;
  std::int64_t most_rows = 0;  // the largest batch that pays; 0: not known
  std::string measured;        // one line for people
  Lone lone = Lone::kUnknown;
  std::string lone_measured;  // one line for people
  bool operator==(const TunedShape&) const = default;
};

class TuneCache {
 public:
  explicit TuneCache(std::string directory) : directory_(std::move(directory)) {}  // "": keeps nothing

  bool enabled() const { return !directory_.empty(); }
  std::optional<TunedShape> find(std::string_view key) const;
  // Makes the folder when it is missing. FAILED_PRECONDITION with the system's words when it cannot be written.
  Status store(std::string_view key, const TunedShape& shape) const;
  std::string file_of(std::string_view key) const;

 private:
  std::string directory_;
};

// 64 bits of FNV-1a over 8-byte words: for cache keys, not for security. `seed`: what came before.
std::uint64_t hash_bytes(const void* data, std::size_t bytes, std::uint64_t seed = 14695981039346656037ULL);

}  // namespace fastserve
