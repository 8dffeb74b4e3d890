// Http2Core: how answers end.
#include <algorithm>
#include <array>

#include "codec/http2_core.h"

namespace fastserve {
namespace {

// RFC 7541 section 6.1: an indexed field in one byte.
constexpr std::uint8_t kIndexed = 0x80;
constexpr std::uint8_t kIndexGoesOn = 0xff;

}  // namespace

bool Http2Core::submit_trailers(Http2Stream& stream) {
  constexpr std::size_t kMaxTrailers = 16;
  const auto trailers =
      stream.ok_trailers ? std::span<const Http2Header>(kGrpcOkTrailers) : stream.trailers();
  if (trailers.empty()) return false;
  std::array<nghttp2_nv, kMaxTrailers> nv;
  const std::size_t count = std::min(trailers.size(), kMaxTrailers);
  for (std::size_t i = 0; i < count; ++i) nv[i] = to_nv(trailers[i]);
  return nghttp2_submit_trailer(session, stream.id, nv.data(), count) == 0;
}

void Http2Core::note_sent_head(std::span<const std::uint8_t> frame) {
  const auto block = frame.subspan(kHttp2FrameHeadBytes);
  constexpr std::uint8_t kLast = NGHTTP2_FLAG_END_STREAM | NGHTTP2_FLAG_END_HEADERS;
  const auto indexed = [](std::uint8_t byte) { return byte >= kIndexed && byte != kIndexGoesOn; };
  if ((frame[4] & NGHTTP2_FLAG_END_HEADERS) == 0 || !std::ranges::all_of(block, indexed)) {
    ok_trailer = 0;
    return;
  }
  if (block.size() != 1 || frame[4] != kLast) return;
  const auto id = static_cast<StreamId>(static_cast<std::uint32_t>(frame[5]) << 24 | frame[6] << 16 |
                                        frame[7] << 8 | frame[8]);
  const Http2Stream* stream = find(id);
  if (stream != nullptr && stream->ok_trailers) ok_trailer = block[0];
}

// The last DATA frame and the trailers behind it. nghttp2 believes that DATA ends the stream, which spares it the third frame
// of each answer (a tenth of what a call costs in user code). Trailers are not flow-controlled, so its accounts are right.
void Http2Core::send_with_own_trailer(Http2Stream& stream,
                                      std::span<const std::uint8_t, kHttp2FrameHeadBytes> head_of_data,
                                      std::size_t length) {
  constexpr std::size_t kFlags = 4;
  std::array<std::uint8_t, kHttp2FrameHeadBytes + 1> trailer = {
      0, 0, 1, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_STREAM | NGHTTP2_FLAG_END_HEADERS};
  std::copy_n(head_of_data.begin() + kFlags + 1, 4, trailer.begin() + kFlags + 1);  // the stream's id
  trailer[kHttp2FrameHeadBytes] = stream.own_trailer;
  std::array<std::uint8_t, kHttp2FrameHeadBytes> data;
  std::ranges::copy(head_of_data, data.begin());
  data[kFlags] &= static_cast<std::uint8_t>(~NGHTTP2_FLAG_END_STREAM);
  out->append(std::as_bytes(std::span(data)));
  stream.pop(length, *out);
  out->append(std::as_bytes(std::span(trailer)));
  guard.useful_frame_sent();
}

}  // namespace fastserve
