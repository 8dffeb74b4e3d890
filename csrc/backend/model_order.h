// The order of one instance's batches over its prepared models: any number of the same one may be under way, a batch for
// another one waits until they have ended, and whoever comes after it waits behind it.
// Thread: any. No callback runs under the lock.
#pragma once

#include <cstdint>
#include <mutex>

namespace fastserve {

class ModelOrder {
 public:
  // Stays where it is from enter() until leave().
  struct Place {
    void (*start)(Place& place) = nullptr;  // by the caller of enter(): the batch may start; must not throw
    void* owner = nullptr;                  // for `start`
    std::int64_t model = 0;                 // its rows; 0: any number
    bool inside = false;
    Place* next = nullptr;
  };

  // True: start now. False: `start` is called by the leave() that makes room.
  bool enter(Place& place);
  // After the run. One that never entered may leave, too.
  void leave(Place& place);

 private:
  std::mutex mutex_;  // guards what follows
  std::int64_t model_ = 0;
  int inside_ = 0;
  Place* first_ = nullptr;  // of those who wait
  Place* last_ = nullptr;
};

}  // namespace fastserve
