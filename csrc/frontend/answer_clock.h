// How long answers take from the engine to the socket: fills the versions' encode_times, and ends the traces of requests.
//
//   add()   a response was taken up and is about to be encoded; its request may be recycled right after
//   sent()  the end of the pass: everything was offered to its socket. One look at the clock for all
//
// Thread: the loop's.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/histogram.h"
#include "batch/request.h"
#include "engine/trace.h"

namespace fastserve {

class AnswerClock {
 public:
  explicit AnswerClock(Tracer& tracer) : tracer_(tracer) {}

  void add(const Request& request, TraceSource source, Nanos now) {
    if (tracer_.on()) trace(request, source, now);
    answers_.push_back({histogram_of(request), request.times.delivered});
  }
  void sent() {
    if (!answers_.empty()) count_all(monotonic_now());
  }

 private:
  struct Answer {
    DurationHistogram* histogram;
    Nanos delivered;
  };
  DurationHistogram* histogram_of(const Request& request);
  void trace(const Request& request, TraceSource source, Nanos now);
  void count_all(Nanos now);

  Tracer& tracer_;
  std::vector<Answer> answers_;  // of this pass
  std::vector<std::pair<Trace, TraceSource>> traces_;
  // Histograms of the versions that answered lately, kept alive: no count of references is touched while they are the same.
  std::vector<std::shared_ptr<DurationHistogram>> known_;
};

}  // namespace fastserve
