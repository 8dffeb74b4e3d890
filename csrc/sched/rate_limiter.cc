#include "sched/rate_limiter.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace fastserve {

RateLimiter::RateLimiter(RateLimits limits) : limits_(std::move(limits)) {}

RateLimiter::~RateLimiter() { assert(seats_.empty()); }

// A global resource has no device; the one device of this machine is 0. What is said of it goes before what is said of all.
std::int64_t RateLimiter::fixed_count(const std::string& name, bool global) const {
  std::int64_t found = -1;
  for (const RateLimits::Resource& said : limits_.resources) {
    if (said.name != name) continue;
    if (said.device == RateLimits::Resource::kEveryDevice) {
      if (found < 0) found = said.count;
    } else if (said.device == 0 && !global) {
      return said.count;
    }
  }
  return found;
}

const RateLimiter::Resource* RateLimiter::find(const std::string& name) const {
  const auto found = std::ranges::find(resources_, name, &Resource::name);
  return found == resources_.end() ? nullptr : &*found;
}

Status RateLimiter::admit(const ResourceNeed& need, const std::string& field) const {
  if (need.count < 0) {
    return invalid_argument(field + ".count: got " + std::to_string(need.count) + ", want 0 or more");
  }
  const std::int64_t most = fixed_count(need.name, need.global);
  if (most >= 0 && need.count > most) {
    return invalid_argument(field + ".count: got " + std::to_string(need.count) + ", want at most " +
                            std::to_string(most) + " (--rate-limit-resource): the instance could never run");
  }
  const Resource* known = find(need.name);
  if (known == nullptr || known->global == need.global) return Status::ok();
  return invalid_argument(field + ".global: got " + (need.global ? "true" : "false") + ", want " +
                          (known->global ? "true" : "false") + " as other instances have it");
}

std::size_t RateLimiter::resource_of(const ResourceNeed& need) {
  if (const Resource* known = find(need.name)) return static_cast<std::size_t>(known - resources_.data());
  Resource& fresh = resources_.emplace_back();
  fresh.name = need.name;
  fresh.global = need.global;
  fresh.fixed = fixed_count(need.name, need.global);
  return resources_.size() - 1;
}

Result<std::unique_ptr<RateLimiter::Seat>> RateLimiter::join(const InstanceGroup& group,
                                                             const std::string& field) {
  std::unique_ptr<Seat> seat;
  if (!limits_.on || group.resources.empty()) return seat;
  const auto checked = [&] {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < group.resources.size(); ++i) {
      const ResourceNeed& need = group.resources[i];
      FS_RETURN_IF_ERROR(admit(need, field + ".rate_limiter.resources[\"" + need.name + "\"]"));
    }
    seat = std::make_unique<Seat>(*this, group.rate_priority);
    for (const ResourceNeed& need : group.resources) {
      if (need.count != 0) seat->needs_.push_back({resource_of(need), need.count});
    }
    seats_.push_back(seat.get());
    measure();
    return Status::ok();
  }();
  if (!checked.is_ok()) return checked;
  return seat;
}

// How much there is of each resource: what was said, else what the neediest instance wants. A resource that nobody needs any
// more keeps its place in the list, so that needs can name it by number; it is nothing until somebody comes.
void RateLimiter::measure() {
  for (Resource& resource : resources_) resource.limit = std::max<std::int64_t>(resource.fixed, 0);
  for (const Seat* seat : seats_) {
    for (const Seat::Need& need : seat->needs_) {
      Resource& resource = resources_[need.resource];
      if (resource.fixed < 0) resource.limit = std::max(resource.limit, need.count);
    }
  }
}

bool RateLimiter::acquire(Seat& seat) {
  const std::lock_guard lock(mutex_);
  if (!seat.granted_) {
    stand_in_line(seat);
    serve_line(&seat);
  }
  return std::exchange(seat.granted_, false);
}

void RateLimiter::stand_in_line(Seat& seat) {
  if (std::exchange(seat.waits_, true)) return;
  seat.arrival_ = ++arrivals_;
  seat.turn_ = std::max(seat.turn_, present_turn_);
  line_.push_back(&seat);
}

void RateLimiter::release(Seat& seat, bool again) {
  const std::lock_guard lock(mutex_);
  give_back(seat, true);
  const bool stands = again && !seat.granted_ && seat.sitter_->has_work();
  if (stands) stand_in_line(seat);
  serve_line(stands ? &seat : nullptr);
}

void RateLimiter::give_up(Seat& seat) {
  const std::lock_guard lock(mutex_);
  give_back(seat, false);
  serve_line(nullptr);
}

void RateLimiter::give_back(Seat& seat, bool ran) {
  for (const Seat::Need& need : seat.needs_) resources_[need.resource].held -= need.count;
  if (!ran) seat.turn_ -= seat.step_;
}

void RateLimiter::withdraw(Seat& seat) {
  const std::lock_guard lock(mutex_);
  if (std::exchange(seat.waits_, false)) std::erase(line_, &seat);
  if (std::exchange(seat.granted_, false)) give_back(seat, false);
  serve_line(nullptr);  // what came free, or was kept for it
}

void RateLimiter::leave(Seat& seat) {
  const std::lock_guard lock(mutex_);
  if (seat.waits_) std::erase(line_, &seat);
  if (seat.granted_) give_back(seat, false);
  std::erase(seats_, &seat);
  measure();
  serve_line(nullptr);
}

bool RateLimiter::fits(const Seat& seat) const {
  return std::ranges::all_of(seat.needs_, [&](const Seat::Need& need) {
    const Resource& resource = resources_[need.resource];
    return !resource.kept && resource.limit - resource.held >= need.count;
  });
}

// From the front: who fits gets his resources, who does not keeps them from those behind. `asking` looks by itself.
void RateLimiter::serve_line(const Seat* asking) {
  if (line_.empty()) return;
  std::ranges::sort(line_, {},
                    [](const Seat* seat) { return std::pair(seat->turn_ + seat->step_, seat->arrival_); });
  for (Resource& resource : resources_) resource.kept = false;
  std::erase_if(line_, [&](Seat* seat) {
    const bool idle = seat != asking && !seat->sitter_->has_work();
    if (!idle && !fits(*seat)) {
      for (const Seat::Need& need : seat->needs_) resources_[need.resource].kept = true;
      return false;
    }
    seat->waits_ = false;
    if (!idle) {
      for (const Seat::Need& need : seat->needs_) resources_[need.resource].held += need.count;
      present_turn_ = std::max(present_turn_, seat->turn_);
      seat->turn_ += seat->step_;
      seat->granted_ = true;
    }
    if (seat != asking) seat->sitter_->wake();
    return true;
  });
}

std::int64_t RateLimiter::limit_of(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const Resource* found = find(name);
  return found == nullptr ? 0 : found->limit;
}

std::size_t RateLimiter::in_line() const {
  const std::lock_guard lock(mutex_);
  return line_.size();
}

std::int64_t RateLimiter::held_of(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const Resource* found = find(name);
  return found == nullptr ? 0 : found->held;
}

}  // namespace fastserve
