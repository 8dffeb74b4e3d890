#include "frontend/cold_queue.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <system_error>

namespace fastserve {

ColdQueue::ColdQueue() : event_fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (!event_fd_.valid()) throw std::system_error(errno, std::generic_category(), "eventfd");
}

void ColdQueue::push(std::vector<ColdEvent>& events) {
  if (events.empty()) return;
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = events_.empty();
    std::ranges::move(events, std::back_inserter(events_));
  }
  events.clear();
  if (first) ::eventfd_write(event_fd_.get(), 1);
}

std::vector<ColdEvent> ColdQueue::take_all() {
  eventfd_t count = 0;
  ::eventfd_read(event_fd_.get(), &count);  // before the events are taken: a later push rings again
  std::vector<ColdEvent> taken;
  const std::lock_guard lock(mutex_);
  taken.swap(events_);
  return taken;
}

}  // namespace fastserve
