// Answers of models that ask for it (`response_cache { enable: true }`), kept for requests that ask the same again: as
// Triton's local cache, one for all models, least recently used out first. What "the same" is: engine/request_key.h.
//
//   submit   answer(): a hit is answered at once, without queue, copy or execution; a miss gets a tap
//   answer   the tap copies inputs and outputs of a good answer in, on the thread that answers
//   unload   forget(): everything of the version goes; another load of the same version never sees it
//
// Bytes: a kept answer counts with its outputs, its inputs (they are compared, so that no answer is ever wrong) and about 0.7 KB;
// one larger than the cache is not kept. An answer that left the cache lives on until the last response that refers to it is
// sent; these bytes are not counted.
// Thread: any. One mutex, held for a look into a map or a few links; hashing, comparing, copying and freeing are outside.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "batch/kept_outputs.h"
#include "engine/engine.h"
#include "model/cached_version.h"
#include "model/model_version.h"

namespace fastserve {

class RequestKey;

class ResponseCache {
 public:
  explicit ResponseCache(std::uint64_t capacity_bytes);
  ~ResponseCache();  // every version was forgotten
  ResponseCache(const ResponseCache&) = delete;
  ResponseCache& operator=(const ResponseCache&) = delete;

  // For ModelVersion::cached, before the version is published; forget() it before the version is destroyed.
  std::unique_ptr<CachedVersion> make_version();
  // Unused: no request of it is under way.
  void forget(CachedVersion& version);

  // A request that begun (ServedVersion::try_begin_request) and is valid. True: its response is delivered and the version's
  // counts are settled, it is not the caller's any more. False: to be queued; when it was a miss, its answer will be kept.
  bool answer(ModelVersion& version, Request& request);

  ResponseCacheTotals totals() const;

 private:
  struct Entry;
  class Version;
  BatchRef find(std::uint64_t fingerprint, Entry*& entry);
  BatchRef lookup(const Version& version, const Request& request, std::uint64_t& fingerprint);
  void insert(Version& version, const Request& request);
  bool add(Entry& entry, Entry*& evicted);
  void unlink(Entry& entry);
  static void hit(ModelVersion& version, Request& request, const BatchRef& found);
  static std::unique_ptr<Entry> copied(Version& version, const Request& request, const RequestKey& key);
  static void release(Entry* list);

  const std::uint64_t capacity_bytes_;
  const std::uint64_t seed_;  // so that nobody can choose requests that all find the same candidate
  struct AsIs {
    std::size_t operator()(std::uint64_t fingerprint) const { return fingerprint; }
  };
  mutable std::mutex mutex_;                                 // guards what follows and the links of entries
  std::unordered_map<std::uint64_t, Entry*, AsIs> entries_;  // at most one for a fingerprint
  Entry* newest_ = nullptr;
  Entry* oldest_ = nullptr;
  ResponseCacheTotals totals_;
};

}  // namespace fastserve
