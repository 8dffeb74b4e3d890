// The region table against a model of it: a walk of operations that are read off bytes. Shared by the random test and the fuzz
// target (tests/fuzz/region_table_fuzz.cc). Aborts, by way of `fail`, on the first difference.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "memory/region_table.h"

namespace fastserve {

class RegionTableWalk {
 public:
  using Fail = void (*)(const char* what);

  // `key`: of a shared memory object of kObjectBytes, which the walk only reads.
  static constexpr std::uint64_t kObjectBytes = 10'000;
  static constexpr std::uint64_t kMostBytes = 40'000;
  static constexpr std::size_t kMostRegions = 5;

  RegionTableWalk(std::string key, Fail fail) : key_(std::move(key)), fail_(fail) {
    table_.allow({kMostRegions, kMostBytes, 1000});
  }

  void run(std::span<const std::uint8_t> bytes) {
    bytes_ = bytes;
    while (!bytes_.empty()) {
      step(next());
      check_totals();
    }
  }

 private:
  struct Known {
    std::uint64_t offset, bytes;
    std::shared_ptr<Region> region;
  };

  std::uint8_t next() {
    if (bytes_.empty()) return 0;
    const std::uint8_t byte = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return byte;
  }
  std::uint64_t number() {  // near the borders that matter, or any
    static constexpr std::uint64_t kBorders[] = {
        0, 1, 4095, 4096, kObjectBytes, kMostBytes, ~std::uint64_t{0}};
    const std::uint8_t kind = next();
    const std::uint64_t base = kBorders[kind % std::size(kBorders)];
    return base + next() % 5 - 2 + (kind >= 200 ? std::uint64_t{next()} << (next() % 64U) : 0);
  }
  std::string name() { return std::string(1, static_cast<char>('a' + next() % 8)); }
  void expect(bool holds, const char* what) {
    if (!holds) fail_(what);
  }

  void step(std::uint8_t what) {
    switch (what % 8) {
      case 0:
      case 1:
      case 2:
        return add();
      case 3: {
        const std::string gone = name();
        table_.remove(gone);
        known_.erase(gone);
        return;
      }
      case 4:
        return find();
      case 5:
        if (next() % 16 != 0) return;
        table_.remove_all();
        return known_.clear();
      case 6:  // a request ends
        if (!held_.empty()) held_.pop_front();
        return;
      default:
        return add_by_key();
    }
  }

  void add() {
    const std::string called = name();
    const std::uint64_t offset = number();
    const std::uint64_t size = number();
    const Status status = table_.add({called, key_, offset, size});
    const bool fits = size != 0 && offset <= kObjectBytes && size <= kObjectBytes - offset;
    const Code want = known_.contains(called)                                    ? Code::kAlreadyExists
                      : regions() >= kMostRegions || size > kMostBytes - bytes() ? Code::kResourceExhausted
                      : fits                                                     ? Code::kOk
                                                                                 : Code::kInvalidArgument;
    expect(status.code() == want, "add: another code");
    if (status.is_ok()) known_[called] = {offset, size, table_.find(called)};
  }

  void add_by_key() {
    std::string key(next() % 40, '\0');
    for (char& c : key) c = static_cast<char>(next());
    if (check_region_key("z", key).is_ok() && key.starts_with("/fs-")) return;  // somebody's object
    const Status status = table_.add({"z", key, 0, 1});
    if (status.is_ok()) table_.remove("z");  // an object that happens to be there
  }

  void find() {
    const std::string called = name();
    const std::shared_ptr<Region> found = table_.find(called);
    const auto known = known_.find(called);
    expect((found != nullptr) == (known != known_.end()), "find: found what is not there, or not what is");
    if (found == nullptr) return;
    const std::uint64_t offset = number();
    const std::uint64_t size = number();
    const std::uint64_t whole = known->second.bytes;
    const auto at = found->at(offset, size);
    expect(at.is_ok() == (offset < whole && size <= whole - offset), "at: another answer");
    if (at.is_ok() && size != 0) {
      const volatile std::byte* first = (*at).data();
      const volatile std::byte* last = first + (size - 1);
      static_cast<void>(*first);
      static_cast<void>(*last);
    }
    if (held_.size() < 4) held_.push_back(found);
  }

  // Alive: known, or held by somebody.
  std::map<const Region*, std::uint64_t> alive() const {
    std::map<const Region*, std::uint64_t> out;
    for (const auto& [called, known] : known_) out[known.region.get()] = known.bytes;
    for (const auto& region : held_) out[region.get()] = region->spec().bytes;
    return out;
  }
  std::size_t regions() const { return alive().size(); }
  std::uint64_t bytes() const {
    std::uint64_t sum = 0;
    for (const auto& [region, size] : alive()) sum += size;
    return sum;
  }
  void check_totals() {
    const RegionTotals totals = table_.totals();
    expect(totals.registered == known_.size(), "totals: registered");
    expect(totals.regions == regions() && totals.bytes == bytes(), "totals: mapped");
    expect(totals.broken == 0, "totals: broken");
    std::vector<std::string> names;
    for (const auto& [called, known] : known_) names.push_back(called);
    std::vector<std::string> listed;
    for (const RegionSpec& spec : table_.list()) listed.push_back(spec.name);
    expect(names == listed, "list: other names");
  }

  const std::string key_;
  const Fail fail_;
  RegionTable table_;
  std::span<const std::uint8_t> bytes_;
  std::map<std::string, Known> known_;
  std::deque<std::shared_ptr<Region>> held_;  // as requests hold them
};

}  // namespace fastserve
