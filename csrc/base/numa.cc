#include "base/numa.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>

namespace fastserve {
namespace {

constexpr int kMostCpus = 1 << 16;  // a list from a broken file must not fill the memory

std::optional<int> number(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0 || value >= kMostCpus)
    return std::nullopt;
  return value;
}

void add_range(std::string_view part, std::vector<int>& cpus) {
  const std::size_t dash = part.find('-');
  const auto first = number(part.substr(0, dash));
  const auto last = dash == std::string_view::npos ? first : number(part.substr(dash + 1));
  if (!first || !last) return;
  for (int cpu = *first; cpu <= *last; ++cpu) cpus.push_back(cpu);
}

}  // namespace

std::vector<int> parse_cpu_list(std::string_view text) {
  std::vector<int> cpus;
  while (!text.empty()) {
    const std::size_t end = text.find_first_of(",\n");
    add_range(text.substr(0, end), cpus);
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  std::ranges::sort(cpus);
  const auto twice = std::unique(cpus.begin(), cpus.end());
  cpus.erase(twice, cpus.end());
  return cpus;
}

std::vector<NumaNode> read_nodes(std::span<const int> allowed, const std::string& directory) {
  std::vector<NumaNode> nodes;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("node")) continue;
    const auto id = number(std::string_view(name).substr(4));
    if (!id) continue;
    std::ifstream file(entry.path() / "cpulist");
    std::string text;
    std::getline(file, text);
    NumaNode node{*id, {}};
    std::ranges::copy_if(parse_cpu_list(text), std::back_inserter(node.cpus),
                         [&](int cpu) { return std::ranges::find(allowed, cpu) != allowed.end(); });
    if (!node.cpus.empty()) nodes.push_back(std::move(node));  // a node may be memory only
  }
  std::ranges::sort(nodes, {}, &NumaNode::id);
  return nodes;
}

std::vector<std::vector<int>> place_instances(int instances, std::span<const NumaNode> nodes,
                                              std::span<const std::vector<int>> pinned) {
  std::vector<const NumaNode*> turns;
  for (const NumaNode& node : nodes) turns.push_back(&node);
  std::ranges::stable_sort(
      turns, [](const NumaNode* a, const NumaNode* b) { return a->cpus.size() > b->cpus.size(); });
  std::vector<std::vector<int>> places;
  std::size_t dealt = 0;
  for (int i = 0; i < instances; ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (!pinned.empty() && !pinned[at % pinned.size()].empty()) {
      places.push_back(pinned[at % pinned.size()]);
    } else if (turns.size() > 1 && instances > 1) {
      places.push_back(turns[dealt++ % turns.size()]->cpus);
    } else {
      places.emplace_back();
    }
  }
  return places;
}

}  // namespace fastserve
