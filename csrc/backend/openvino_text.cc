#include "backend/openvino_text.h"

namespace fastserve {
namespace {

bool is_location(std::string_view line) {
  return line.empty() || line.starts_with("Exception from ") ||
         (line.starts_with("Check '") && line.ends_with(":"));
}

std::string_view trim(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

}  // namespace

std::string openvino_reason(std::string_view what) {
  // The front ends head a report with words that say nothing; this line of it names the operations.
  if (const std::size_t found = what.find("No conversion rule found"); found != std::string_view::npos)
    return std::string(trim(what.substr(found, what.find('\n', found) - found)));
  std::string_view rest = what;
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    const std::string_view line = trim(rest.substr(0, end));
    if (!is_location(line)) return std::string(line);
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  const std::string_view first = trim(what.substr(0, what.find('\n')));
  return first.empty() ? "OpenVINO gave no reason" : std::string(first);
}

}  // namespace fastserve
