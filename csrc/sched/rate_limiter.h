// Triton's rate limiter: named resources that an instance holds while it runs a batch, and turns by weight where instances
// want more than there is. One for the engine, across models. An instance that needs nothing has no seat and never comes here.
//
//   acquire: before the pull, all of the instance's resources or none; a seat that gets none waits in line
//   release: when the batch is finished, on whatever thread; hands what came free to those in line and wakes them
//
// Who is next: the seat with the fewest executions weighted by its priority (2 gets half the turns of 1), then who came first.
// A seat that sat idle starts at the present turn: it saves up nothing. Who is next and does not fit keeps its resources from
// those behind it (so a large need is not starved by small ones); those that need none of the same pass by. Nobody waits for a
// second resource while holding a first, and a batch that runs always ends: no deadlock.
// Thread: any; one mutex, held for a walk along the line and the wakes.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/status.h"
#include "batch/scheduling.h"

namespace fastserve {

// --rate-limit and --rate-limit-resource.
struct RateLimits {
  struct Resource {
    static constexpr int kEveryDevice = -1;
    std::string name;
    std::int64_t count = 0;
    int device = kEveryDevice;  // of a global resource too; the CPU is device 0, others are kept and not used
  };
  bool on = false;                  // false ("off"): what models say about resources means nothing
  std::vector<Resource> resources;  // not named: as much as the neediest instance wants
};

class RateLimiter {
 public:
  // Whoever sits on a seat. Called with the limiter's lock held: must not call back.
  class Sitter {
   public:
    virtual bool has_work() const = 0;  // false: its turn is skipped
    virtual void wake() = 0;            // it got its resources, or lost its place in the line: acquire again

   protected:
    ~Sitter() = default;
  };

  // One instance's place. Destroying it gives the place up; nothing may be held then.
  class Seat {
   public:
    Seat(RateLimiter& limiter, std::uint32_t priority)
        : limiter_(limiter), step_(priority == 0 ? 1 : priority) {}
    ~Seat() { limiter_.leave(*this); }
    Seat(const Seat&) = delete;
    Seat& operator=(const Seat&) = delete;

    void sit(Sitter& sitter) { sitter_ = &sitter; }  // before the first acquire
    bool acquire() { return limiter_.acquire(*this); }
    // The batch is finished. `again`: the sitter will look for work at once, so it stands in line before the next is chosen;
    // else two instances that compete would take turns whatever their weights.
    void release(bool again) { limiter_.release(*this, again); }
    void give_up() { limiter_.give_up(*this); }  // acquired, and then there was nothing to run: no turn taken
    void withdraw() { limiter_.withdraw(*this); }  // out of the line; what was set aside goes on

   private:
    friend class RateLimiter;
    struct Need {
      std::size_t resource = 0;  // in resources_
      std::int64_t count = 0;
    };
    RateLimiter& limiter_;
    const std::uint32_t step_;  // how far one execution takes its turn
    Sitter* sitter_ = nullptr;
    // Under the limiter's lock:
    std::vector<Need> needs_;
    std::uint64_t turn_ = 0;     // weighted executions
    std::uint64_t arrival_ = 0;  // in the line
    bool waits_ = false;
    bool granted_ = false;  // resources are set aside for it, and it has not fetched them yet
  };

  explicit RateLimiter(RateLimits limits = {});
  ~RateLimiter();  // no seats
  RateLimiter(const RateLimiter&) = delete;
  RateLimiter& operator=(const RateLimiter&) = delete;

  // A seat for an instance of the group, nullptr when it needs none. INVALID_ARGUMENT when it could never run or names a
  // resource as global that others have per device; `field`: of the group ("instance_group[0]").
  Result<std::unique_ptr<Seat>> join(const InstanceGroup& group, const std::string& field);

  // What there is and what is held now; 0 for a name that no seat needs.
  std::int64_t limit_of(const std::string& name) const;
  std::int64_t held_of(const std::string& name) const;
  std::size_t in_line() const;  // seats that wait

 private:
  struct Resource {
    std::string name;
    bool global = false;
    std::int64_t fixed = -1;  // by RateLimits; -1: not said
    std::int64_t limit = 0;
    std::int64_t held = 0;
    bool kept = false;  // while the line is walked: for a seat in front
  };

  std::int64_t fixed_count(const std::string& name, bool global) const;
  Status admit(const ResourceNeed& need, const std::string& field) const;
  std::size_t resource_of(const ResourceNeed& need);
  const Resource* find(const std::string& name) const;
  void measure();
  bool acquire(Seat& seat);
  void release(Seat& seat, bool again);
  void give_up(Seat& seat);
  void withdraw(Seat& seat);
  void leave(Seat& seat);
  void give_back(Seat& seat, bool ran);
  void stand_in_line(Seat& seat);
  void serve_line(const Seat* asking);
  bool fits(const Seat& seat) const;

  const RateLimits limits_;
  mutable std::mutex mutex_;  // guards what follows
  std::vector<Resource> resources_;
  std::vector<Seat*> seats_;
  std::vector<Seat*> line_;
  std::uint64_t present_turn_ = 0;
  std::uint64_t arrivals_ = 0;
};

}  // namespace fastserve
