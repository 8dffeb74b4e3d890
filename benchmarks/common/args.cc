#include "common/args.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>

namespace fastserve::bench {

Args::Args(int argc, char** argv, std::string_view help) : program_(argv[0]), words_(argv + 1, argv + argc) {
  if (std::find(words_.begin(), words_.end(), "--help") != words_.end()) {
    std::fwrite(help.data(), 1, help.size(), stdout);
    std::exit(0);
  }
}

bool Args::flag(std::string_view name) {
  const auto at = std::find(words_.begin(), words_.end(), name);
  if (at == words_.end()) return false;
  words_.erase(at);
  return true;
}

std::string Args::text(std::string_view name, std::string_view fallback) {
  const auto at = std::find(words_.begin(), words_.end(), name);
  if (at == words_.end()) return std::string(fallback);
  if (at + 1 == words_.end()) fail(std::string(name) + " wants a value");
  std::string value = *(at + 1);
  words_.erase(at, at + 2);
  return value;
}

std::int64_t Args::integer(std::string_view name, std::int64_t fallback, std::int64_t min, std::int64_t max) {
  const std::string word = text(name);
  if (word.empty()) return fallback;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || end != word.data() + word.size() || value < min || value > max) {
    fail(std::string(name) + ": got " + word + ", want a whole number from " + std::to_string(min) + " to " +
         std::to_string(max));
  }
  return value;
}

double Args::real(std::string_view name, double fallback, double min, double max) {
  const std::string word = text(name);
  if (word.empty()) return fallback;
  char* end = nullptr;
  const double value = std::strtod(word.c_str(), &end);
  if (end != word.c_str() + word.size() || !(value >= min && value <= max)) {
    fail(std::string(name) + ": got " + word + ", want a number from " + std::to_string(min) + " to " +
         std::to_string(max));
  }
  return value;
}

std::vector<std::int64_t> Args::integers(std::string_view name, std::vector<std::int64_t> fallback) {
  const std::string word = text(name);
  if (word.empty()) return fallback;
  std::vector<std::int64_t> values;
  const char* at = word.data();
  const char* const end = at + word.size();
  while (true) {
    std::int64_t value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    if (error != std::errc()) fail(std::string(name) + ": got " + word + ", want numbers such as 1,16");
    values.push_back(value);
    if (next == end) return values;
    if (*next != ',') fail(std::string(name) + ": got " + word + ", want numbers such as 1,16");
    at = next + 1;
  }
}

void Args::finish() const {
  if (!words_.empty()) fail("unknown option " + words_.front() + " (see --help)");
}

void Args::fail(const std::string& message) const {
  std::fprintf(stderr, "%s: %s\n", program_.c_str(), message.c_str());
  std::exit(2);
}

}  // namespace fastserve::bench
