// What every tool's main() does: its failures in one line, and what a server among them needs: an end by signal and a
// ready file.
#pragma once

#include <csignal>
#include <string>
#include <string_view>

namespace fastserve::bench {

// run(argc, argv); what it throws becomes one line on stderr that begins with the program's name, and exit code 2.
int run_tool(int (*run)(int, char**), int argc, char** argv);

// SIGTERM and SIGINT, blocked from now on: make it before a library starts threads, so that only wait() sees them.
class StopSignals {
 public:
  StopSignals();
  void wait() const;  // until one arrives
  const sigset_t& set() const { return set_; }

 private:
  sigset_t set_{};
};

// {"<protocol>": "127.0.0.1:PORT"}. Other processes wait for the file, so it appears whole. An empty path: nothing.
// Throws std::runtime_error naming the path.
void write_ready_file(const std::string& path, std::string_view protocol, int port);

}  // namespace fastserve::bench
