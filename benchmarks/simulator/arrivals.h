// When requests come: open-loop traces with a mean rate, or clients in a closed loop.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "simulator/scheduler.h"

namespace simulator {

// Arrival times from 0 on, ascending, `count` of them, `per_s` on average. `kind`:
//   poisson
//   bursty    Markov-modulated Poisson with two states: 5 x the mean rate for 20 arrivals on average, else 0.2 x
//   diurnal   Poisson whose rate swings as a sine by 60 % around the mean, 5 periods over the trace
//   recorded  the gaps of `recorded` (ns) again and again, scaled to the mean rate
std::vector<Nanos> arrivals(std::string_view kind, double per_s, std::size_t count, std::uint64_t seed,
                            const std::vector<Nanos>& recorded);

// One offset in microseconds a line, lines that begin with # are skipped. Returns the gaps in ns.
std::vector<Nanos> read_recorded(const std::string& path);

}  // namespace simulator
