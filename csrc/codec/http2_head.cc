// Http2Core: the header sections of requests.
#include "codec/http2_core.h"

namespace fastserve {
namespace {

constexpr std::size_t kKeepBytes = 4096;  // of the last request's header section

}  // namespace

void Http2Core::keep_field(nghttp2_rcbuf* name, nghttp2_rcbuf* value) {
  if (head_repeats && head_count < head_fields.size() && head_fields[head_count].name == name &&
      head_fields[head_count].value == value) {
    return;
  }
  if (head_repeats) drop_fields_from(head_count);
  head_repeats = head_is_read = false;
  nghttp2_rcbuf_incref(name);
  nghttp2_rcbuf_incref(value);
  head_fields.push_back({name, value});
}

void Http2Core::drop_fields_from(std::size_t first) {
  if (first == head_fields.size()) return;
  head_is_read = false;  // it has views of them
  for (std::size_t i = first; i < head_fields.size(); ++i) {
    nghttp2_rcbuf_decref(head_fields[i].name);
    nghttp2_rcbuf_decref(head_fields[i].value);
  }
  head_fields.resize(first);
}

void Http2Core::announce(Http2Stream& stream, bool end_stream) {
  drop_fields_from(head_count);  // fewer than last time
  head.repeated = head_is_read;
  if (!head_is_read) read_head();
  head.end_stream = end_stream;
  stream.announced = true;
  ++announced;
  events.on_request(stream.id, head);
  if (head_list_bytes > kKeepBytes) drop_fields_from(0);
}

void Http2Core::read_head() {
  const auto text = [](nghttp2_rcbuf* buffer) {
    const nghttp2_vec bytes = nghttp2_rcbuf_get_buf(buffer);
    return std::string_view(reinterpret_cast<const char*>(bytes.base), bytes.len);
  };
  head = {};
  head_is_read = true;
  head_views.clear();
  for (const Field& field : head_fields) {
    const std::string_view name = text(field.name);
    const std::string_view value = text(field.value);
    if (name.empty() || name.front() != ':') {
      head_views.push_back({name, value, false});
    } else if (name == ":path") {
      head.path = value;
    } else if (name == ":method") {
      head.method = value;
    } else if (name == ":authority") {
      head.authority = value;
    } else if (name == ":scheme") {
      head.scheme = value;
    }
  }
  head.fields = head_views;
}

}  // namespace fastserve
