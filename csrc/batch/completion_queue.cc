#include "queue/completion_queue.h"

#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "batch/request.h"

namespace fastserve {

CompletionQueue::CompletionQueue(Wake wake) {
  if (wake == Wake::kFutex) return;
  event_fd_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event_fd_.valid()) throw std::system_error(errno, std::generic_category(), "eventfd");
}

CompletionQueue::~CompletionQueue() {
  if (!ready_.empty()) ++takes_;
  while (wakes_.load(std::memory_order_acquire) != takes_) ::sched_yield();
}

void CompletionQueue::deliver_chain(Response* newest, Response* oldest) {
  // Whoever does not find the queue empty touches nothing of it afterwards: the owner may destroy it as soon as it took
  // the last response that it waits for.
  if (!ready_.push_chain(newest, oldest)) return;
  if (!event_fd_.valid()) {
    bell_.ring();
  } else if (!owner_looks_.load(std::memory_order_seq_cst)) {  // after the push; partner: may_sleep
    wake_self();
  }
  wakes_.fetch_add(1, std::memory_order_release);
}

void CompletionQueue::wake_self() {
  const std::uint64_t one = 1;
  writes_.fetch_add(1, std::memory_order_release);  // before the write; partner: take_all
  // Fails only when the counter is at its limit, and then the descriptor is readable anyway.
  [[maybe_unused]] const ssize_t written = ::write(event_fd_.get(), &one, sizeof(one));
}

Response* CompletionQueue::take_all() {
  // A loop that looks at the queue every pass pays for the read only when somebody wrote, or is about to: a descriptor that is
  // readable has been announced, so it never stays readable, and what was read says how many writes are through.
  if (event_fd_.valid() && writes_.load(std::memory_order_acquire) != cleared_) {
    std::uint64_t through = 0;
    if (::read(event_fd_.get(), &through, sizeof(through)) == sizeof(through)) {
      cleared_ += static_cast<std::uint32_t>(through);
    }
  }
  Response* taken = ready_.take_all();
  if (taken != nullptr) ++takes_;
  return taken;
}

Response* CompletionQueue::wait(Nanos until) {
  for (;;) {
    const std::uint32_t ticket = bell_.ticket();
    if (Response* taken = take_all(); taken != nullptr) return taken;
    if (until != kNever && monotonic_now() >= until) return nullptr;
    bell_.wait(ticket, until);
  }
}

}  // namespace fastserve
