#include "engine/response_cache.h"

#include <cstring>
#include <new>
#include <random>

#include "batch/answer_tap.h"
#include "batch/place_outputs.h"
#include "engine/request_key.h"

namespace fastserve {
namespace {

constexpr std::size_t kMapNodeBytes = 64;  // and its share of the table

std::uint64_t random_seed() {
  std::random_device device;
  return (static_cast<std::uint64_t>(device()) << 32U) ^ device();
}

std::size_t output_bytes(const Response& response) {
  std::size_t bytes = 0;
  for (const OutputTensor& output : response.outputs) bytes += KeptOutputs::padded(output.data.size());
  return bytes;
}

std::size_t parameter_bytes(const Response& response) {
  if (response.parameters == nullptr) return 0;
  std::size_t bytes = 0;
  for (const ResponseParameter& each : *response.parameters) {
    bytes += sizeof each + each.name.size();
    if (const auto* text = std::get_if<std::string>(&each.value)) bytes += text->size();
  }
  return bytes;
}

}  // namespace

// One kept answer: outputs in memory(), the key behind them. Holds one reference to itself while it is in the cache.
struct ResponseCache::Entry final : KeptOutputs {
  explicit Entry(std::size_t bytes) : KeptOutputs(bytes) {}

  Version* version = nullptr;
  std::uint64_t fingerprint = 0;
  std::span<const std::byte> key;
  std::size_t charged_bytes = 0;
  BatchRef self;
  Entry *newer = nullptr, *older = nullptr;    // of all
  Entry *previous = nullptr, *next = nullptr;  // of the version
};

class ResponseCache::Version final : public CachedVersion, public AnswerTap {
 public:
  explicit Version(ResponseCache& cache) : cache_(cache) {}

  Request* answered(Request& request) override {
    if (!request.response.status.is_ok()) return &request;
    const Nanos begin = monotonic_now();
    cache_.insert(*this, request);
    count<Writers::kAny>(miss_ns, static_cast<std::uint64_t>(monotonic_now() - begin));
    return &request;
  }

  Entry* first = nullptr;  // guarded by the cache's mutex

 private:
  ResponseCache& cache_;
};

ResponseCache::ResponseCache(std::uint64_t capacity_bytes)
    : capacity_bytes_(capacity_bytes), seed_(random_seed()) {
  totals_.capacity_bytes = capacity_bytes;
}

ResponseCache::~ResponseCache() {
  Entry* all = nullptr;
  while (oldest_ != nullptr) {
    Entry& entry = *oldest_;
    unlink(entry);
    entry.next = std::exchange(all, &entry);
  }
  release(all);
}

std::unique_ptr<CachedVersion> ResponseCache::make_version() { return std::make_unique<Version>(*this); }

void ResponseCache::forget(CachedVersion& version) {
  constexpr int kAtOnce = 64;  // lookups of other models get their turn in between
  auto& own = static_cast<Version&>(version);
  for (bool more = true; more;) {
    Entry* dropped = nullptr;
    {
      const std::lock_guard lock(mutex_);
      for (int i = 0; i < kAtOnce && own.first != nullptr; ++i) {
        Entry& entry = *own.first;
        unlink(entry);
        entry.next = std::exchange(dropped, &entry);
      }
      more = own.first != nullptr;
    }
    release(dropped);
  }
}

ResponseCacheTotals ResponseCache::totals() const {
  const std::lock_guard lock(mutex_);
  return totals_;
}

// --- looking up ----------------------------------------------------------------------------------------------------------

bool ResponseCache::answer(ModelVersion& version, Request& request) {
  if (request.cancelled.load(std::memory_order_relaxed) || !cacheable(request)) return false;
  // Answers in order: a hit may not overtake. This request is one of the unanswered.
  if (version.spec().queue.preserve_ordering && version.unanswered() > 1) return false;
  auto& own = static_cast<Version&>(*version.cached);
  BatchRef found;
  try {
    found = lookup(own, request, request.fingerprint);
  } catch (const std::bad_alloc&) {
    return false;
  }
  if (found.get() != nullptr) {
    hit(version, request, found);
    return true;
  }
  request.tap = &own;
  count<Writers::kAny>(own.misses);
  count<Writers::kAny>(own.miss_ns, static_cast<std::uint64_t>(monotonic_now() - request.times.enqueued));
  return false;
}

BatchRef ResponseCache::lookup(const Version& version, const Request& request, std::uint64_t& fingerprint) {
  const RequestKey key(request);
  fingerprint = key.fingerprint(seed_ ^ reinterpret_cast<std::uintptr_t>(&version));
  Entry* entry = nullptr;
  BatchRef found = find(fingerprint, entry);
  if (entry == nullptr || (entry->version == &version && key.equals(entry->key))) return found;
  return {};
}

// A reference, so that it may be read without the lock; becomes the newest.
BatchRef ResponseCache::find(std::uint64_t fingerprint, Entry*& entry) {
  const std::lock_guard lock(mutex_);
  const auto at = entries_.find(fingerprint);
  if (at == entries_.end()) return {};
  entry = at->second;
  if (entry != newest_) {
    (entry == oldest_ ? oldest_ : entry->older->newer) = entry->newer;
    entry->newer->older = entry->older;
    entry->newer = nullptr;
    entry->older = std::exchange(newest_, entry);
    entry->older->newer = entry;
  }
  return BatchRef(entry);
}

void ResponseCache::hit(ModelVersion& version, Request& request, const BatchRef& found) {
  auto& own = *version.cached;
  Response& response = request.response;
  request.version = &version;
  response.request = &request;
  response.status = Status::ok();
  response.final = true;
  response.misplaced = false;
  static_cast<Entry*>(found.get())->lend(response);
  place_outputs(request);
  const Nanos now = monotonic_now();
  StageTimes& times = request.times;
  times.delivered = now;
  count<Writers::kAny>(own.hits);
  count<Writers::kAny>(own.hit_ns, static_cast<std::uint64_t>(now - times.enqueued));
  const Nanos took = now - (times.received != 0 ? times.received : times.enqueued);
  Statistics& statistics = version.queue().statistics;
  if (response.misplaced) {
    statistics.add(Outcome::kClientMemory, took);
  } else {
    StatisticsShard& shard = statistics.common();
    shard.queue.count<Writers::kAny>(0);
    shard.total.count<Writers::kAny>(took);
    shard.last_run.store(now, std::memory_order_relaxed);
  }
  version.retain();  // the owner may give the request's own handle back as soon as it has the response
  request.completions->deliver(&response);
  version.answered_and_release(1, 1);
}

// --- keeping ---------------------------------------------------------------------------------------------------------------

void ResponseCache::insert(Version& version, const Request& request) {
  Entry* gone = nullptr;
  try {
    const RequestKey key(request);
    if (key.bytes() > capacity_bytes_ || output_bytes(request.response) > capacity_bytes_) {
      const std::lock_guard lock(mutex_);
      ++totals_.too_large;
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      if (entries_.contains(request.fingerprint)) return;  // asked twice at the same time
    }
    Entry* entry = copied(version, request, key).release();
    entry->self = BatchRef(entry);
    if (!add(*entry, gone)) gone = entry;
  } catch (const std::bad_alloc&) {
    // Not kept.
  }
  release(gone);
}

std::unique_ptr<ResponseCache::Entry> ResponseCache::copied(Version& version, const Request& request,
                                                            const RequestKey& key) {
  const std::size_t bytes = output_bytes(request.response) + key.bytes();
  auto entry = std::make_unique<Entry>(bytes);
  std::byte* at = entry->memory();
  entry->outputs.reserve(request.response.outputs.size());
  for (const OutputTensor& output : request.response.outputs) {
    OutputTensor& own = entry->outputs.emplace_back(output);
    own.data = {at, output.data.size()};
    if (!output.data.empty()) std::memcpy(at, output.data.data(), output.data.size());
    at += KeptOutputs::padded(output.data.size());
  }
  entry->parameters = request.response.parameters;
  key.copy_to(at);
  entry->key = {at, key.bytes()};
  entry->version = &version;
  entry->fingerprint = request.fingerprint;
  entry->charged_bytes = bytes + sizeof(Entry) + entry->outputs.size() * sizeof(OutputTensor) +
                         parameter_bytes(request.response) + kMapNodeBytes;
  return entry;
}

// `evicted`: a list by `next`, to be released without the lock.
bool ResponseCache::add(Entry& entry, Entry*& evicted) {
  const std::lock_guard lock(mutex_);
  if (entry.charged_bytes > capacity_bytes_) {
    ++totals_.too_large;
    return false;
  }
  try {
    if (!entries_.emplace(entry.fingerprint, &entry).second) return false;
  } catch (const std::bad_alloc&) {
    return false;
  }
  entry.older = std::exchange(newest_, &entry);
  (entry.older == nullptr ? oldest_ : entry.older->newer) = &entry;
  entry.next = std::exchange(entry.version->first, &entry);
  if (entry.next != nullptr) entry.next->previous = &entry;
  totals_.bytes += entry.charged_bytes;
  ++totals_.entries;
  while (totals_.bytes > capacity_bytes_) {
    Entry& victim = *oldest_;
    unlink(victim);
    victim.next = std::exchange(evicted, &victim);
    ++totals_.evictions;
  }
  return true;
}

// Mutex held.
void ResponseCache::unlink(Entry& entry) {
  entries_.erase(entry.fingerprint);
  (entry.newer == nullptr ? newest_ : entry.newer->older) = entry.older;
  (entry.older == nullptr ? oldest_ : entry.older->newer) = entry.newer;
  (entry.previous == nullptr ? entry.version->first : entry.previous->next) = entry.next;
  if (entry.next != nullptr) entry.next->previous = entry.previous;
  entry.newer = entry.older = entry.previous = entry.next = nullptr;
  totals_.bytes -= entry.charged_bytes;
  --totals_.entries;
}

void ResponseCache::release(Entry* list) {
  while (list != nullptr) {
    Entry* next = list->next;
    const BatchRef last = std::move(list->self);  // may free it
    list = next;
  }
}

}  // namespace fastserve
