// Command-line words of the benchmark tools: `--name value` and `--name` only. Errors end the process with
// code 2 and one line that names the option and the value: these are tools, not servers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fastserve::bench {

class Args {
 public:
  // `help` is printed, with exit code 0, when `--help` is among the words.
  Args(int argc, char** argv, std::string_view help);

  // True once if the bare word `name` was given.
  bool flag(std::string_view name);
  // The word that follows `name`, or `fallback`.
  std::string text(std::string_view name, std::string_view fallback = "");
  // As text(), read as a number in [min, max].
  std::int64_t integer(std::string_view name, std::int64_t fallback, std::int64_t min, std::int64_t max);
  double real(std::string_view name, double fallback, double min, double max);
  // A list such as `1,16`.
  std::vector<std::int64_t> integers(std::string_view name, std::vector<std::int64_t> fallback);
  // Fails if a word was never asked for.
  void finish() const;

  // One line on stderr, exit code 2.
  [[noreturn]] void fail(const std::string& message) const;

 private:
  std::string program_;
  std::vector<std::string> words_;
};

}  // namespace fastserve::bench
