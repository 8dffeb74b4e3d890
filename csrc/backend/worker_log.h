// What a worker writes to stdout and stderr -> log lines, each with the worker's name in front. A flood is cut: beyond so many
// lines a second they are counted and dropped, so that a model cannot drown the server's log.
// Thread: one at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

namespace fastserve {

// Bytes in, lines out. Pure.
class LineCutter {
 public:
  static constexpr std::size_t kMostLineBytes = 8192;  // longer ones are cut in pieces

  template <class Take>
  void feed(std::string_view bytes, const Take& take) {
    while (!bytes.empty()) {
      const std::size_t end = bytes.find('\n');
      const std::size_t room = kMostLineBytes - rest_.size();
      const std::size_t part = std::min(end == std::string_view::npos ? bytes.size() : end, room);
      rest_.append(bytes.substr(0, part));
      const bool whole = part == end;
      bytes.remove_prefix(part + (whole ? 1 : 0));
      if (whole || rest_.size() == kMostLineBytes) finish(take);
    }
  }
  // The end: what has no newline is a line too.
  template <class Take>
  void finish(const Take& take) {
    if (!rest_.empty()) take(std::string_view(rest_));
    rest_.clear();
  }

 private:
  std::string rest_;
};

// So many at once, and per second. Pure.
class LineBudget {
 public:
  static constexpr std::int64_t kLinesPerSecond = 200;
  static constexpr std::int64_t kBurst = 1000;

  bool take(Nanos now);
  std::int64_t take_dropped() { return std::exchange(dropped_, 0); }

 private:
  Nanos since_ = 0;
  std::int64_t left_ = kBurst;
  std::int64_t dropped_ = 0;
};

class WorkerLog {
 public:
  explicit WorkerLog(std::string name) : name_(std::move(name)) {}

  // The read ends of a new process; what the former one left half done is finished.
  void attach(UniqueFd out, UniqueFd err);
  int out_fd() const { return out_.fd.get(); }
  int err_fd() const { return err_.fd.get(); }
  // Reads what is there without blocking.
  void read(Nanos now);
  void finish(Nanos now);  // the process is gone: what has no newline is a line, too
  void say(LogLevel level, std::string_view text) const { log(level, name_ + ": " + std::string(text)); }
  // The last lines of stderr, newest last: "" or " (...)" for the end of a message.
  std::string tail() const;
  void forget_tail() { tail_.clear(); }

 private:
  struct Stream {
    UniqueFd fd;
    LineCutter lines;
    LogLevel level = LogLevel::kInfo;
  };
  void read(Stream& stream, Nanos now);
  void line(const Stream& stream, std::string_view text, Nanos now);

  const std::string name_;
  Stream out_;
  Stream err_;
  LineBudget budget_;
  std::deque<std::string> tail_;
};

}  // namespace fastserve
