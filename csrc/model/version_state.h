// The life of one version, as data: NEW > LOADING > WARMING > READY > DRAINING > UNLOADED, any > FAILED(reason).
#pragma once

#include <cstdint>
#include <string_view>

namespace fastserve {

enum class VersionState : std::uint8_t { kNew, kLoading, kWarming, kReady, kDraining, kUnloaded, kFailed };
inline constexpr int kVersionStateCount = 7;

std::string_view version_state_name(VersionState state);  // "READY"

// Whether the table has the step. FAILED and UNLOADED are ends: another load is another version object.
bool transition_allowed(VersionState from, VersionState to);

}  // namespace fastserve
