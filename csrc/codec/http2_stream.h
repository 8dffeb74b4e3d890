// What Http2Session keeps per stream: the answer that waits for flow control. Pooled, so that its buffers are reused.
// One thread: the session's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "codec/http2_session.h"
#include "codec/out_message.h"
#include "codec/write_queue.h"

namespace fastserve {

class Http2Stream {
 public:
  StreamId id = 0;
  void* data = nullptr;      // the front end's
  bool announced = false;    // on_request was called: owes an on_closed
  bool remote_end = false;   // END_STREAM received
  bool answered = false;     // response HEADERS submitted, or reset: no second answer
  bool reset = false;        // we reset it: no further events but on_closed
  bool ended = false;        // the answer is complete but for what is queued
  bool ok_trailers = false;  // it ends with kGrpcOkTrailers, in place of trailers()
  std::uint8_t own_trailer =
      0;  // the last DATA frame is followed by this byte as a HEADERS frame; 0: nghttp2 sends trailers
  Http2Stream* next = nullptr;  // list of live streams, or of pooled ones
  Http2Stream* prev = nullptr;

  void push(OutMessage&& message);  // takes the content, leaves a cleared message with other capacities
  std::size_t queued_bytes() const { return queued_; }
  // Moves the next `bytes` (<= queued_bytes()) to `out`: copies small pieces, references large ones.
  void pop(std::size_t bytes, WriteQueue& out);
  void drop_messages();

  void set_trailers(std::span<const Http2Header> trailers);  // copies what is not fixed
  std::span<const Http2Header> trailers() const { return trailers_; }

  void recycle();  // as new, capacities kept up to a bound

 private:
  OutMessage& front() { return slots_[head_]; }
  void pop_slot();

  std::vector<OutMessage> slots_;  // ring of `count_` messages from `head_`
  std::size_t head_ = 0;
  std::size_t count_ = 0;
  std::size_t own_at_ = 0;        // the front message: bytes of `own` that are out
  std::size_t external_at_ = 0;   // externals that are out
  std::size_t external_off_ = 0;  // bytes of the next external that are out
  std::size_t queued_ = 0;
  std::vector<Http2Header> trailers_;
  ByteBuffer trailer_text_;
};

}  // namespace fastserve
