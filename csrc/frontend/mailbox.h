// Things to do on a loop's thread, posted by other threads; in the order in which they were posted. For cold work: a lock and
// a std::function each.
// Thread: post from any; the rest from the loop's.
#pragma once

#include <functional>
#include <mutex>
#include <vector>

#include "base/fd.h"

namespace fastserve {

class Mailbox {
 public:
  using Letter = std::function<void()>;

  Mailbox();                                        // throws std::system_error
  int event_fd() const { return event_fd_.get(); }  // readable when there is something to run
  void post(Letter letter);
  void run_all();

 private:
  UniqueFd event_fd_;
  std::mutex mutex_;
  std::vector<Letter> letters_;
};

}  // namespace fastserve
