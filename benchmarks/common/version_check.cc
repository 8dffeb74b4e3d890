#include "common/version_check.h"

#include <charconv>
#include <cstring>

namespace fastserve::bench {

std::string VersionCheck::fault(const Reply& reply, std::int64_t now_ns) {
  const auto wrong = [this](std::string text) {
    ++wrong_;
    return "wrong version: " + text;
  };
  std::int64_t said = -1;
  std::from_chars(reply.version.data(), reply.version.data() + reply.version.size(), said);
  float content = -1;
  if (reply.bytes.size() >= sizeof(content)) std::memcpy(&content, reply.bytes.data(), sizeof(content));
  if (said < 0 || static_cast<std::int64_t>(content) != said) {
    return wrong("model_version " + std::string(reply.version) + ", content " + std::to_string(content));
  }
  const auto newer = first_seen_ns_.upper_bound(said);
  if (newer != first_seen_ns_.end() && newer->second < reply.started_ns) {
    return wrong(std::to_string(said) + ", asked after " + std::to_string(newer->first) + " had answered");
  }
  if (newer == first_seen_ns_.end()) first_seen_ns_.try_emplace(said, now_ns);
  return "";
}

}  // namespace fastserve::bench
