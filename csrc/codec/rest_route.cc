#include "codec/rest_route.h"

#include <algorithm>

namespace fastserve {
namespace {

constexpr std::string_view kPrefix = "/v2/models/";
constexpr std::string_view kVersions = "/versions/";
constexpr std::string_view kInfer = "/infer";

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// False at a bad escape, a NUL (raw or escaped) and an empty name.
bool decode_name(std::string_view raw, Scratch& scratch, std::string_view& out) {
  if (raw.empty()) return false;
  out = raw;
  if (raw.find('%') == std::string_view::npos) return raw.find('\0') == std::string_view::npos;
  char* const start = reinterpret_cast<char*>(scratch.allocate(raw.size()).data());
  char* to = start;
  for (std::size_t i = 0; i < raw.size(); ++i) {
    char c = raw[i];
    if (c == '%') {
      if (i + 2 >= raw.size()) return false;
      const int high = hex_digit(raw[i + 1]);
      const int low = hex_digit(raw[i + 2]);
      if (high < 0 || low < 0) return false;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    if (c == '\0') return false;
    *to++ = c;
  }
  out = {start, static_cast<std::size_t>(to - start)};
  return true;
}

}  // namespace

RestMatch match_infer_route(std::string_view path, Scratch& scratch, RestRoute& out) {
  out = {};
  if (!path.starts_with(kPrefix) || !path.ends_with(kInfer) || path.size() < kPrefix.size() + kInfer.size()) {
    return RestMatch::kOther;
  }
  const std::string_view names = path.substr(kPrefix.size(), path.size() - kPrefix.size() - kInfer.size());
  const std::size_t slash = names.find('/');
  const std::string_view model = names.substr(0, slash);
  const std::string_view rest = slash == std::string_view::npos ? std::string_view() : names.substr(slash);
  const bool versioned = rest.starts_with(kVersions);
  const std::string_view version = versioned ? rest.substr(kVersions.size()) : std::string_view();
  if ((!rest.empty() && !versioned) || version.find('/') != std::string_view::npos) return RestMatch::kOther;
  const bool good =
      decode_name(model, scratch, out.model) && (!versioned || decode_name(version, scratch, out.version));
  return good ? RestMatch::kInfer : RestMatch::kMalformed;
}

}  // namespace fastserve
