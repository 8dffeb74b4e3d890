// Collects final responses that go out together, so that a batch costs one push and one wake for each completion queue
// instead of one for each request. Nothing of an added request may be touched after the next add() or send().
// Thread: one.
#pragma once

#include <utility>

#include "batch/place_outputs.h"
#include "batch/request.h"
#include "queue/completion_queue.h"

namespace fastserve {

class ResponseChain {
 public:
  ResponseChain() = default;
  ResponseChain(const ResponseChain&) = delete;
  ResponseChain& operator=(const ResponseChain&) = delete;
  ~ResponseChain() { send(); }

  void add(Request& added) {
    Request* last = &added;
    while (last->tap != nullptr) {
      last = std::exchange(last->tap, nullptr)->answered(*last);
      if (last == nullptr) return;
    }
    Request& request = *last;
    place_outputs(request);
    if (request.completions != queue_) send();
    queue_ = request.completions;
    Response* response = &request.response;
    response->next_in_intake = newest_;
    if (oldest_ == nullptr) oldest_ = response;
    newest_ = response;
  }

  void send() {
    if (newest_ != nullptr) queue_->deliver_chain(newest_, oldest_);
    queue_ = nullptr;
    newest_ = oldest_ = nullptr;
  }

 private:
  CompletionQueue* queue_ = nullptr;
  Response* newest_ = nullptr;
  Response* oldest_ = nullptr;
};

}  // namespace fastserve
