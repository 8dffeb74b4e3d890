#include "codec/http2_stream.h"

#include <algorithm>
#include <memory>

namespace fastserve {
namespace {

constexpr std::size_t kKeepBytes = 16 * 1024;  // of a pooled stream's buffers

// Owned bytes that are worth a reference become an external with their own keep-alive.
void share_own(OutMessage& message) {
  if (message.own.size() < kReferenceBytes || !message.external.empty()) return;
  auto owned = std::make_shared<ByteBuffer>(std::move(message.own));
  message.own = ByteBuffer();
  message.add_external(owned->span());
  message.keep = std::move(owned);
}

std::string_view copied(std::string_view text, ByteBuffer& into) {
  char* at = reinterpret_cast<char*>(into.extend(text.size()));
  std::copy(text.begin(), text.end(), at);
  return {at, text.size()};
}

}  // namespace

void Http2Stream::push(OutMessage&& message) {
  share_own(message);
  queued_ += message.bytes();
  if (count_ == slots_.size()) {
    std::rotate(slots_.begin(), slots_.begin() + static_cast<std::ptrdiff_t>(head_), slots_.end());
    head_ = 0;
    slots_.emplace_back();
  }
  OutMessage& slot = slots_[(head_ + count_) % slots_.size()];
  std::swap(slot.own, message.own);
  std::swap(slot.external, message.external);
  slot.keep = std::move(message.keep);
  ++count_;
  message.clear();
  if (queued_ == 0) drop_messages();  // nothing in it: no slot to wait for
}

void Http2Stream::pop(std::size_t bytes, WriteQueue& out) {
  queued_ -= bytes;
  while (bytes != 0) {
    OutMessage& message = front();
    const bool in_external =
        external_at_ < message.external.size() && message.external[external_at_].at == own_at_;
    if (in_external) {
      const auto& whole = message.external[external_at_].bytes;
      const std::size_t n = std::min(bytes, whole.size() - external_off_);
      out.reference(whole.subspan(external_off_, n), message.keep);
      external_off_ += n;
      bytes -= n;
      if (external_off_ == whole.size()) ++external_at_, external_off_ = 0;
    } else {
      const std::size_t end =
          external_at_ < message.external.size() ? message.external[external_at_].at : message.own.size();
      const std::size_t n = std::min(bytes, end - own_at_);
      out.append(std::span<const std::byte>(message.own.data() + own_at_, n));
      own_at_ += n;
      bytes -= n;
    }
    if (own_at_ == message.own.size() && external_at_ == message.external.size()) pop_slot();
  }
}

void Http2Stream::pop_slot() {
  front().clear();
  own_at_ = external_at_ = external_off_ = 0;
  head_ = (head_ + 1) % slots_.size();
  --count_;
}

void Http2Stream::drop_messages() {
  while (count_ != 0) pop_slot();
  head_ = queued_ = 0;
}

void Http2Stream::set_trailers(std::span<const Http2Header> trailers) {
  std::size_t bytes = 0;
  for (const Http2Header& t : trailers) bytes += t.fixed ? 0 : t.name.size() + t.value.size();
  trailer_text_.clear();
  trailer_text_.reserve(bytes);  // no growth below: the views stay valid
  trailers_.clear();
  for (const Http2Header& t : trailers) {
    trailers_.push_back(
        t.fixed ? t : Http2Header{copied(t.name, trailer_text_), copied(t.value, trailer_text_), false});
  }
}

void Http2Stream::recycle() {
  drop_messages();
  if (slots_.size() > 1) slots_.resize(1);
  if (!slots_.empty()) slots_.front().own.shrink(kKeepBytes);
  trailers_.clear();
  trailer_text_.clear();
  trailer_text_.shrink(kKeepBytes);
  id = 0;
  data = nullptr;
  announced = remote_end = answered = reset = ended = ok_trailers = false;
  own_trailer = 0;
  next = prev = nullptr;
}

}  // namespace fastserve
