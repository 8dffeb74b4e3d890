// Undoes what keeps the kernel from joining mappings again. OpenVINO's CPU plug-in binds its buffers to a memory node
// (mbind(2)), also where there is one node alone, and the kernel joins only neighbours of the same policy: each load left
// about 2 (ResNet-50) to 20 (a small model, at first) more mappings, of 65,530 that a process may have (vm.max_map_count).
// Thread: any.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace fastserve {

struct AddressRange {
  std::size_t begin = 0;
  std::size_t end = 0;  // the first byte behind it
  bool operator==(const AddressRange&) const = default;
};

// Of the text of /proc/self/maps: ranges of private memory without a file (heap and anonymous, rw-p) that consist of several
// mappings side by side.
std::vector<AddressRange> split_ranges(std::string_view maps);

// Gives the process's memory without a file the default policy again. Does nothing with more than one memory node, where the
// policies mean something. -> ranges that it changed.
std::size_t forget_memory_policies();

}  // namespace fastserve
