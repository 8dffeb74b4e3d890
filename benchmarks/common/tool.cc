#include "common/tool.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>

namespace fastserve::bench {

int run_tool(int (*run)(int, char**), int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    const std::string_view path = argv[0];
    const std::string name(path.substr(path.rfind('/') + 1));
    std::fprintf(stderr, "%s: %s\n", name.c_str(), error.what());
    return 2;
  }
}

StopSignals::StopSignals() {
  sigemptyset(&set_);
  sigaddset(&set_, SIGTERM);
  sigaddset(&set_, SIGINT);
  sigprocmask(SIG_BLOCK, &set_, nullptr);
}

void StopSignals::wait() const {
  int signal = 0;
  sigwait(&set_, &signal);
}

void write_ready_file(const std::string& path, std::string_view protocol, int port) {
  if (path.empty()) return;
  const std::string part = path + ".part";
  const std::string text =
      "{\"" + std::string(protocol) + "\": \"127.0.0.1:" + std::to_string(port) + "\"}\n";
  std::FILE* file = std::fopen(part.c_str(), "w");
  bool written = file != nullptr && std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if (file != nullptr) written = std::fclose(file) == 0 && written;
  if (!written || std::rename(part.c_str(), path.c_str()) != 0) {
    throw std::runtime_error("cannot write " + path + ": " + std::strerror(errno));
  }
}

}  // namespace fastserve::bench
