// Who looks at a final response before it goes to its owner: the response cache keeps a copy, a request that was cut into
// parts waits for the last of them. Requests without one pay for one branch.
#pragma once

namespace fastserve {

struct Request;  // batch/request.h

class AnswerTap {
 public:
  // On whatever thread answers, once, with everything of the response filled in. Returns the request whose response goes out now:
  // this one, the one that this was a part of, or nullptr. Any other than the returned one may be gone afterwards. Must not throw.
  virtual Request* answered(Request& request) = 0;

 protected:
  ~AnswerTap() = default;
};

// The parts of a request that is larger than a batch. Owned by that request until it is reset.
class RequestParts {
 public:
  virtual ~RequestParts() = default;
  // By the owner of the whole, before its final response; tells the version as well.
  virtual void cancel() = 0;
};

}  // namespace fastserve
