#include "model/version_state.h"

#include <array>
#include <cstddef>

namespace fastserve {
namespace {

using Row = std::array<bool, kVersionStateCount>;

struct StateRow {
  std::string_view name;
  Row to;  // NEW, LOADING, WARMING, READY, DRAINING, UNLOADED, FAILED
};

constexpr std::array<StateRow, kVersionStateCount> kStates{{
    {"NEW", {false, true, false, false, false, false, true}},
    {"LOADING", {false, false, true, false, false, false, true}},
    {"WARMING", {false, false, false, true, false, false, true}},
    {"READY", {false, false, false, false, true, false, true}},
    {"DRAINING", {false, false, false, false, false, true, true}},
    {"UNLOADED", {false, false, false, false, false, false, false}},
    {"FAILED", {false, false, false, false, false, false, false}},
}};

}  // namespace

std::string_view version_state_name(VersionState state) {
  return kStates[static_cast<std::size_t>(state)].name;
}

bool transition_allowed(VersionState from, VersionState to) {
  return kStates[static_cast<std::size_t>(from)].to[static_cast<std::size_t>(to)];
}

}  // namespace fastserve
