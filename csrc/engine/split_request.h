// A request with more rows than a batch (LoadSpec::max_request_rows; TF Serving's enable_large_batch_splitting): cut into parts by
// rows, each a request of its own in the queue; their answers are put together in order.
//
//   parts      of max_batch_rows rows, the last one of the rest; they point into the whole's inputs and share its priority,
//              deadline, queue timeout and place of arrival
//   admission  the whole takes one place (ModelQueue::admit); then each part waits, so it may exceed the queue limit by its parts
//   failure    the first part that fails decides the status; what has not started of the others is cancelled. The whole is
//              answered when the last part is back
//   statistics one request with its rows; times from the first part's start to the last one's end. A batch counts as any other
//
// Thread: made by the submitter, which owns it through Request::parts; answered() by whoever answers a part, several at once.
#pragma once

#include <atomic>
#include <memory>
#include <span>

#include "base/status.h"
#include "batch/answer_tap.h"
#include "batch/request.h"
#include "model/model_version.h"

namespace fastserve {

class SplitRequest final : public RequestParts, public AnswerTap {
 public:
  // `whole` passed validate and has more rows than a batch. Throws std::bad_alloc.
  SplitRequest(ModelVersion& version, Request& whole);

  // The parts to push, in order. After the last one was pushed the whole may be answered and gone.
  std::span<Request> parts() { return {parts_.get(), count_}; }

  void cancel() override;
  Request* answered(Request& part) override;

 private:
  void fill(Request& part);
  void join();
  Status put_together();
  void count_whole() const;

  ModelVersion& version_;
  Request& whole_;
  const std::size_t count_;
  const std::unique_ptr<Request[]> parts_;
  std::unique_ptr<std::size_t[]> byte_offsets_;  // of each input: where the next part begins
  std::atomic<const Request*> failed_{nullptr};  // the first one; its status is the whole's
  std::atomic<std::size_t> unanswered_;          // acq_rel: who answers the last one sees all of them
};

}  // namespace fastserve
