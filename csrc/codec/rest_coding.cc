#include "codec/rest_coding.h"

#include <algorithm>

#include "codec/http1_head.h"

namespace fastserve {
namespace {

constexpr int kNotNamed = -1;
constexpr int kFullWeight = 1000;

std::string_view trim(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

// Everything up to `mark`, which is taken off with it.
std::string_view take_until(std::string_view& rest, char mark) {
  const std::size_t at = rest.find(mark);
  const std::string_view out = rest.substr(0, at);
  rest = at == std::string_view::npos ? std::string_view() : rest.substr(at + 1);
  return trim(out);
}

// "0", "0.25", "1.000" in thousandths; 0 for anything else.
int weight_of(std::string_view text) {
  if (text.empty() || (text[0] != '0' && text[0] != '1') || text.size() > 5) return 0;
  int weight = (text[0] - '0') * kFullWeight;
  if (text.size() == 1) return weight;
  if (text[1] != '.') return 0;
  int unit = kFullWeight / 10;
  for (const char c : text.substr(2)) {
    if (c < '0' || c > '9') return 0;
    weight += (c - '0') * unit;
    unit /= 10;
  }
  return weight <= kFullWeight ? weight : 0;
}

int weight_of_parameters(std::string_view parameters) {
  while (!parameters.empty()) {
    std::string_view parameter = take_until(parameters, ';');
    if (equals_lower(take_until(parameter, '='), "q")) return weight_of(trim(parameter));
  }
  return kFullWeight;
}

}  // namespace

std::optional<Compression> parse_content_coding(std::string_view header) {
  header = trim(header);
  if (header.empty() || equals_lower(header, "identity")) return Compression::kIdentity;
  if (equals_lower(header, "gzip") || equals_lower(header, "x-gzip")) return Compression::kGzip;
  if (equals_lower(header, "deflate")) return Compression::kDeflate;
  return std::nullopt;
}

Compression choose_coding(std::string_view accept_encoding) {
  int gzip = kNotNamed;
  int deflate = kNotNamed;
  int identity = kNotNamed;
  int others = kNotNamed;
  while (!accept_encoding.empty()) {
    std::string_view item = take_until(accept_encoding, ',');
    const std::string_view name = take_until(item, ';');
    const int weight = weight_of_parameters(item);
    if (name == "*") {
      others = weight;
    } else if (const auto coding = name.empty() ? std::nullopt : parse_content_coding(name)) {
      (*coding == Compression::kGzip ? gzip : *coding == Compression::kDeflate ? deflate : identity) = weight;
    }
  }
  const auto or_others = [others](int weight) { return weight == kNotNamed ? std::max(others, 0) : weight; };
  gzip = or_others(gzip);
  deflate = or_others(deflate);
  const int best = std::max({gzip, deflate, identity});  // an identity that is not named comes last
  if (best <= 0 || (identity == best && gzip < best && deflate < best)) return Compression::kIdentity;
  return gzip == best ? Compression::kGzip : Compression::kDeflate;
}

}  // namespace fastserve
