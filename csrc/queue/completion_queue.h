// Where finished responses wait for the owner of their request: an Intake plus one wake per burst. The owner is an I/O
// loop (woken through an eventfd that sits in its poller), a thread blocked in Engine::infer (woken through a Doorbell),
// or an embedding program's asyncio loop (eventfd). The queue outlives every request submitted with it.
//
// Defined in batch/completion_queue.cc, because Response lives there.
// Thread: deliver from any thread (instances, vendor callbacks, timer); the rest from the owner.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/clock.h"
#include "base/fd.h"
#include "queue/doorbell.h"
#include "queue/intake.h"

namespace fastserve {

struct Response;  // batch/request.h

class CompletionQueue {
 public:
  enum class Wake : std::uint8_t { kEventFd, kFutex };

  explicit CompletionQueue(Wake wake);
  // Owner. Every response was taken; waits for a deliverer that still is between its push and the end of its wake.
  ~CompletionQueue();
  CompletionQueue(const CompletionQueue&) = delete;
  CompletionQueue& operator=(const CompletionQueue&) = delete;

  // Hands a response over. The delivery that finds the queue empty wakes the owner; later ones of the burst do not.
  void deliver(Response* response) { deliver_chain(response, response); }
  // Several at once (the answers of one batch), linked from `newest` to `oldest` by next_in_intake: one wake for all.
  void deliver_chain(Response* newest, Response* oldest);

  // Owner, kEventFd only: between keep_awake() and a may_sleep() that returned true the owner looks at the queue by itself, and
  // deliveries spare the write to the eventfd. may_sleep() is false when something came meanwhile: take it, and ask again
  // (or wake_self(), and see to other things first).
  void keep_awake() { owner_looks_.store(true, std::memory_order_seq_cst); }
  bool may_sleep() {
    owner_looks_.store(false, std::memory_order_seq_cst);  // before the look; partner: deliver_chain
    return ready_.empty();
  }
  void wake_self();

  // Owner: all responses so far, oldest first, linked by next_in_intake. With kEventFd it first clears the eventfd.
  Response* take_all();

  Wake wake() const { return event_fd_.valid() ? Wake::kEventFd : Wake::kFutex; }
  int event_fd() const {
    return event_fd_.get();
  }  // -1 with kFutex; readable when there is something to take

  // Owner, kFutex only: blocks until something was delivered or `until` passed.
  Response* wait(Nanos until);

 private:
  Intake<Response> ready_;
  // Every take that found something emptied the queue, so exactly one push afterwards or before it found it empty and woke:
  // wakes_ == takes_ means that nobody is left inside deliver_chain. The destructor waits for that.
  std::uint32_t takes_ = 0;               // owner only
  std::uint32_t cleared_ = 0;             // owner only: writes that were read from the eventfd
  std::atomic<std::uint32_t> writes_{0};  // to the eventfd, begun
  std::atomic<bool> owner_looks_{false};
  std::atomic<std::uint32_t> wakes_{0};  // release: a deliverer's last touch; acquire in the destructor
  Doorbell bell_;
  UniqueFd event_fd_;
};

}  // namespace fastserve
