#include "memory/region_table.h"

#include <algorithm>
#include <mutex>
#include <utility>

namespace fastserve {
namespace {

Status taken(const std::string& name) {
  return {Code::kAlreadyExists, "shared memory region '" + shown(name) + "' already in manager"};
}

}  // namespace

RegionTable::RegionTable() : quota_(std::make_shared<RegionQuota>()) {}

void RegionTable::allow(const RegionLimits& limits) {
  limits_ = limits;
  allowed_.store(true, std::memory_order_release);
}

Status RegionTable::add(RegionSpec spec) {
  Status status = try_add(std::move(spec), &Region::open);
  if (!status.is_ok()) count_refusal();
  return status;
}

Status RegionTable::add_on_device(RegionSpec spec, std::span<const std::byte> handle,
                                  DeviceMemoryOpener& opener) {
  Status status = try_add(std::move(spec), [&](RegionSpec own, RegionQuota::Share share) {
    return Region::open_on_device(std::move(own), handle, opener, std::move(share));
  });
  if (!status.is_ok()) count_refusal();
  return status;
}

template <class Open>
Status RegionTable::try_add(RegionSpec spec, Open open) {
  if (find(spec.name) != nullptr) return taken(spec.name);
  FS_ASSIGN_OR_RETURN(RegionQuota::Share share, quota_->take(spec.bytes, limits_));
  FS_ASSIGN_OR_RETURN(std::shared_ptr<Region> region, open(std::move(spec), std::move(share)));
  const std::string& name = region->spec().name;
  const std::unique_lock lock(mutex_);
  // Not moved from when the name is there: somebody was faster, and the region goes when the lock is open again.
  if (!regions_.try_emplace(name, region).second) return taken(name);
  return Status::ok();
}

void RegionTable::remove(std::string_view name) {
  std::shared_ptr<Region> last;  // unmapped without the lock
  const std::unique_lock lock(mutex_);
  const auto at = regions_.find(name);
  if (at == regions_.end()) return;
  last = std::move(at->second);
  regions_.erase(at);
}

void RegionTable::remove_all(bool on_device) {
  std::vector<std::shared_ptr<Region>> last;  // unmapped without the lock
  const std::unique_lock lock(mutex_);
  std::erase_if(regions_, [&](auto& each) {
    if (each.second->spec().on_device() != on_device) return false;
    last.push_back(std::move(each.second));
    return true;
  });
}

std::shared_ptr<Region> RegionTable::find(std::string_view name) const {
  const std::shared_lock lock(mutex_);
  const auto at = regions_.find(name);
  return at == regions_.end() ? nullptr : at->second;
}

std::vector<RegionSpec> RegionTable::list() const {
  std::vector<RegionSpec> out;
  {
    const std::shared_lock lock(mutex_);
    out.reserve(regions_.size());
    for (const auto& [name, region] : regions_) out.push_back(region->spec());
  }
  std::ranges::sort(out, {}, &RegionSpec::name);
  return out;
}

RegionTotals RegionTable::totals() const {
  RegionTotals out;
  out.allowed = allowed();
  out.regions = quota_->regions();
  out.bytes = quota_->bytes();
  out.refused = refused_.load(std::memory_order_relaxed);
  out.limits = limits_;
  const std::shared_lock lock(mutex_);
  out.registered = regions_.size();
  for (const auto& [name, region] : regions_) {
    out.broken += region->broken() ? 1 : 0;
    out.on_device += region->spec().on_device() ? 1 : 0;
  }
  return out;
}

}  // namespace fastserve
