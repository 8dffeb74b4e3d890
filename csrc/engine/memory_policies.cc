#include "engine/memory_policies.h"

#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <charconv>
#include <fstream>
#include <iterator>
#include <string>

namespace fastserve {
namespace {

// Of one line of proc_pid_maps(5): "begin-end rw-p offset dev inode [path]". begin == end: of another kind.
AddressRange plain_range(std::string_view line) {
  AddressRange range;
  const char* const last = line.data() + line.size();
  const auto begin = std::from_chars(line.data(), last, range.begin, 16);
  if (begin.ec != std::errc() || begin.ptr == last) return {};
  const auto end = std::from_chars(begin.ptr + 1, last, range.end, 16);
  if (end.ec != std::errc()) return {};
  const std::string_view rest(end.ptr, static_cast<std::size_t>(last - end.ptr));
  if (!rest.starts_with(" rw-p 00000000 00:00 0")) return {};
  const std::size_t bracket = rest.find_first_of("[/");
  return bracket == std::string_view::npos || rest.substr(bracket) == "[heap]" ? range : AddressRange{};
}

bool one_memory_node() {
  std::ifstream file("/sys/devices/system/node/has_memory");
  std::string nodes;
  return std::getline(file, nodes) && nodes == "0";
}

}  // namespace

std::vector<AddressRange> split_ranges(std::string_view maps) {
  std::vector<AddressRange> out;
  AddressRange run;
  bool several = false;
  const auto flush = [&] {
    if (several) out.push_back(run);
    several = false;
  };
  while (!maps.empty()) {
    const std::size_t length = maps.find('\n');
    const AddressRange range = plain_range(maps.substr(0, length));
    maps.remove_prefix(length == std::string_view::npos ? maps.size() : length + 1);
    if (range.begin < range.end && range.begin == run.end) {
      run.end = range.end;
      several = true;
      continue;
    }
    flush();
    run = range;
  }
  flush();
  return out;
}

std::size_t forget_memory_policies() {
  static const bool one = one_memory_node();
  if (!one) return 0;
  std::ifstream file("/proc/self/maps");
  const std::string maps{std::istreambuf_iterator<char>(file), {}};
  std::size_t changed = 0;
  for (const AddressRange& range : split_ranges(maps)) {
    // What was unmapped meanwhile is no error of anybody; where mbind is forbidden, nobody has bound anything.
    const long done = ::syscall(SYS_mbind, range.begin, range.end - range.begin, MPOL_DEFAULT, nullptr, 0, 0);
    changed += done == 0 ? 1 : 0;
  }
  return changed;
}

}  // namespace fastserve
