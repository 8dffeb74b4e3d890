#include "backend/tune_cache.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

#include "base/fd.h"

namespace fastserve {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kHead = "fastserve tuned shape, format 2\n";
constexpr std::string_view kEnd = "end\n";
constexpr std::uintmax_t kMostBytes = 64 << 10;
constexpr std::int64_t kMostRows = std::int64_t{1} << 32;
constexpr std::int64_t kMostStreams = 1 << 16;

bool take(std::string_view& text, std::string_view part) {
  if (!text.starts_with(part)) return false;
  text.remove_prefix(part.size());
  return true;
}

// `name value\n` with a value from 0 to `most`.
std::optional<std::int64_t> take_number(std::string_view& text, std::string_view name, std::int64_t most) {
  if (!take(text, name) || !take(text, " ")) return std::nullopt;
  std::int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < 0 || value > most) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  if (!take(text, "\n")) return std::nullopt;
  return value;
}

// The rest of a line that begins with `name`.
std::optional<std::string> take_line(std::string_view& text, std::string_view name) {
  if (!take(text, name)) return std::nullopt;
  const std::size_t end = text.find('\n');
  if (end == std::string_view::npos) return std::nullopt;
  std::string line(text.substr(0, end));
  text.remove_prefix(end + 1);
  return line;
}

std::string one_line(std::string text) {
  for (char& c : text) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  return text;
}

std::string words(std::string_view key, const TunedShape& shape) {
  std::string text(kHead);
  text += key;
  text += "streams " + std::to_string(shape.streams) + "\nmost_rows " + std::to_string(shape.most_rows) +
          "\nlone " + std::to_string(static_cast<int>(shape.lone)) + "\nmeasured " +
          one_line(shape.measured) + "\nlone_measured " + one_line(shape.lone_measured) + "\n";
  return text += kEnd;
}

std::optional<TunedShape> parse(std::string_view text, std::string_view key) {
  if (!take(text, kHead) || !take(text, key)) return std::nullopt;
  const auto streams = take_number(text, "streams", kMostStreams);
  const auto rows = take_number(text, "most_rows", kMostRows);
  const auto lone = take_number(text, "lone", static_cast<std::int64_t>(Lone::kOwn));
  if (!streams || *streams < 1 || !rows || !lone) return std::nullopt;
  const auto measured = take_line(text, "measured ");
  const auto lone_measured = take_line(text, "lone_measured ");
  if (!measured || !lone_measured || text != kEnd) return std::nullopt;
  return TunedShape{static_cast<int>(*streams), *rows, *measured, static_cast<Lone>(*lone), *lone_measured};
}

Status failed(const std::string& what) {
  return {Code::kFailedPrecondition, what + ": " + std::strerror(errno)};
}

Status write_file(const std::string& path, std::string_view text) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file.valid()) return failed("cannot write \"" + path + "\"");
  while (!text.empty()) {
    const ssize_t written = ::write(file.get(), text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return failed("cannot write \"" + path + "\"");
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return Status::ok();
}

}  // namespace

std::uint64_t hash_bytes(const void* data, std::size_t bytes, std::uint64_t seed) {
  constexpr std::uint64_t kPrime = 1099511628211ULL;
  const auto* at = static_cast<const unsigned char*>(data);
  std::uint64_t hash = seed;
  for (; bytes >= sizeof(std::uint64_t); at += sizeof(std::uint64_t), bytes -= sizeof(std::uint64_t)) {
    std::uint64_t word = 0;
    std::memcpy(&word, at, sizeof word);
    hash = (hash ^ word) * kPrime;
    hash ^= hash >> 32;  // whole words leave the low bits alone otherwise
  }
  for (; bytes > 0; ++at, --bytes) hash = (hash ^ *at) * kPrime;
  return hash;
}

std::string TuneCache::file_of(std::string_view key) const {
  std::array<char, 32> name{};
  std::snprintf(name.data(), name.size(), "%016llx.tuned",
                static_cast<unsigned long long>(hash_bytes(key.data(), key.size())));
  return directory_ + "/" + name.data();
}

std::optional<TunedShape> TuneCache::find(std::string_view key) const {
  if (!enabled()) return std::nullopt;
  const std::string path = file_of(key);
  std::error_code error;
  const std::uintmax_t size = fs::file_size(path, error);
  if (error || size > kMostBytes) return std::nullopt;
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return parse(text.str(), key);
}

Status TuneCache::store(std::string_view key, const TunedShape& shape) const {
  if (!enabled()) return Status::ok();
  std::error_code error;
  fs::create_directories(directory_, error);  // a failure shows at the write, with the same words
  static std::atomic<unsigned> count{0};
  const std::string path = file_of(key);
  const std::string part = path + "." + std::to_string(::getpid()) + "-" + std::to_string(count++) + ".part";
  Status written = write_file(part, words(key, shape));
  if (written.is_ok() && ::rename(part.c_str(), path.c_str()) != 0)
    written = failed("cannot replace \"" + path + "\"");
  if (!written.is_ok()) ::unlink(part.c_str());
  return written;
}

}  // namespace fastserve
