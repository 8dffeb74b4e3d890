// A request to a model that sleeps (engine/waiting_rooms.h): its inner request waits in the model's room and is submitted again
// once the model is loaded. Whoever made the request sees one request with one answer.
//
// The request's owner may cancel it at any time, while another thread submits the inner one again; so nothing that cancel reads
// is written after park(): cancel goes through Request::parts, and the mutex is held while the inner request is submitted.
// Thread: as said. Owned by the request that was parked, through Request::parts, and by whoever submits the inner one again: the
// owner may have its answer, and reset its request, before submit() has returned.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "batch/answer_tap.h"
#include "batch/request.h"

namespace fastserve {

class Submitter;
class WaitingRoom;

class ParkedRequest final : public AnswerTap, public std::enable_shared_from_this<ParkedRequest> {
 public:
  // On the submitter's thread. Throws std::bad_alloc.
  ParkedRequest(Request& whole, WaitingRoom& room);

  Request& inner() { return inner_; }
  std::uint64_t bytes() const { return bytes_; }

  // Any thread, once, by whoever took the inner request out of the room: it waits there no more. Not OK: to be answered by refuse.
  Status submit(Submitter& submitter);
  void refuse(Status status);

  void cancel();
  Request* answered(Request& inner) override;

 private:
  WaitingRoom& room_;
  Request& whole_;
  std::uint64_t bytes_ = 0;
  bool waits_ = true;  // in the room; handed on with the inner request
  std::mutex mutex_;   // cancel and submit: what the inner request belongs to
  Request inner_;
};

// What the request has as its parts.
class ParkedParts final : public RequestParts {
 public:
  explicit ParkedParts(std::shared_ptr<ParkedRequest> parked) : parked_(std::move(parked)) {}
  void cancel() override { parked_->cancel(); }

 private:
  const std::shared_ptr<ParkedRequest> parked_;
};

// Bytes that a request keeps alive while it waits.
std::uint64_t kept_bytes(const Request& request);

}  // namespace fastserve
