#include "backend/worker_log.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

namespace fastserve {
namespace {

constexpr std::size_t kTailLines = 5;
constexpr int kMostReads = 16;  // of one look, so that a flood does not hold up the answers

}  // namespace

bool LineBudget::take(Nanos now) {
  const Nanos passed = now - since_;
  const std::int64_t earned =
      passed >= kBurst * kSecond / kLinesPerSecond ? kBurst : passed * kLinesPerSecond / kSecond;
  if (earned > 0) {
    left_ = std::min(left_ + earned, kBurst);
    since_ = now;
  }
  if (left_ == 0) {
    ++dropped_;
    return false;
  }
  --left_;
  return true;
}

void WorkerLog::attach(UniqueFd out, UniqueFd err) {
  finish(monotonic_now());
  out_.fd = std::move(out);
  err_.fd = std::move(err);
  out_.level = LogLevel::kInfo;
  err_.level = LogLevel::kWarning;
}

void WorkerLog::finish(Nanos now) {
  read(now);
  for (Stream* stream : {&out_, &err_})
    stream->lines.finish([&](std::string_view text) { line(*stream, text, now); });
}

void WorkerLog::read(Nanos now) {
  read(out_, now);
  read(err_, now);
}

void WorkerLog::read(Stream& stream, Nanos now) {
  std::array<char, 4096> buffer;
  for (int i = 0; i < kMostReads && stream.fd.valid(); ++i) {
    const ssize_t got = ::read(stream.fd.get(), buffer.data(), buffer.size());
    if (got == 0) return stream.fd.reset();
    if (got < 0) return;
    stream.lines.feed({buffer.data(), static_cast<std::size_t>(got)},
                      [&](std::string_view text) { line(stream, text, now); });
  }
}

void WorkerLog::line(const Stream& stream, std::string_view text, Nanos now) {
  if (stream.level == LogLevel::kWarning && !text.empty()) {
    tail_.emplace_back(text);
    if (tail_.size() > kTailLines) tail_.pop_front();
  }
  if (!budget_.take(now)) return;
  if (const std::int64_t dropped = budget_.take_dropped(); dropped != 0)
    say(LogLevel::kWarning, std::to_string(dropped) + " lines were dropped: it writes too many");
  say(stream.level, text);
}

std::string WorkerLog::tail() const {
  std::string text;
  for (const std::string& line : tail_) text += (text.empty() ? " (its last words: " : " | ") + line;
  return text.empty() ? text : text + ")";
}

}  // namespace fastserve
