// The machine's memory nodes and who computes where. With one node there is nothing to decide.
//
// No machine with two nodes was at hand: the plan is tested on made-up topologies, its effect was never measured.
// Thread: any; read_nodes reads files.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fastserve {

struct NumaNode {
  int id = 0;
  std::vector<int> cpus;  // ascending, those that the process may use
  bool operator==(const NumaNode&) const = default;
};

// "0-3,8,10-11" as the kernel writes CPU lists; what is not understood is left out.
std::vector<int> parse_cpu_list(std::string_view text);

// Nodes with at least one of `allowed`, ascending by id. Empty: the kernel does not say (then take it as one node).
std::vector<NumaNode> read_nodes(std::span<const int> allowed,
                                 const std::string& directory = "/sys/devices/system/node");

// The CPUs to which each of `instances` is bound; an empty list: anywhere.
//   pinned[i % pinned.size()] where the configuration names CPUs for an instance (host policy); outside of `nodes`: as it is
//   one node: nobody is bound
//   one instance: it is not bound, the whole machine is its own
//   more nodes: instances are dealt out to the nodes in turn, the node with the most CPUs first, so that an instance's threads and
//   memory share a node
std::vector<std::vector<int>> place_instances(int instances, std::span<const NumaNode> nodes,
                                              std::span<const std::vector<int>> pinned = {});

}  // namespace fastserve
