// How many streams a model gets when nobody says it: which numbers are worth a measurement, and the rule that chooses.
// Measuring itself is the backend's (openvino_tune.h).
//
// The rule: a request that comes alone must not pay for throughput. Of the numbers of streams with which a lone request is as
// fast as with the best one (3 % more, or 10 % as long as that is below 0.2 ms), the one with the most rows per second, and
// of those within 5 % of it the fewest streams. More streams have fewer threads each, so the first number that makes a lone
// request slower ends the search.
// Thread: any; the settings behind a lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"

namespace fastserve {

struct TuneSettings {
  bool at_load = true;          // --tune off|load
  std::string cache_directory;  // --tune-cache; "": nothing is kept
  // For finding the streams at one load, compiling candidates included; the measurement that is under way is finished. Half
  // of it for finding out whether one row gets a model of its own.
  Nanos most_ns = 2 * kSecond;
  // How long our threads may have waited for a CPU, for each second that they ran: beyond, the machine is too busy to measure.
  double most_wait = 0.2;
};
TuneSettings tune_settings();
void set_tune_settings(const TuneSettings& settings);  // for the process; loads that begin later

struct StreamsMeasured {
  int streams = 1;
  Nanos lone_ns = 0;      // one row, nothing else running
  double rows_per_s = 0;  // all streams busy, the better of the measured sizes; 0: not measured
};

// Numbers worth a look, ascending: 1, then `nodes` x 1, 2, 4, ... below `threads`, and `threads`.
std::vector<int> streams_ladder(int threads, int nodes = 1);

bool lone_is_good(Nanos lone_ns, Nanos best_ns);

// Whether one row gets a compiled model of its own, which holds the weights once more: it saves 0.5 % of the run, and 50 us.
bool lone_pays(Nanos saved_ns, Nanos run_ns);

// Index of the choice; `measured` is not empty and ascends by streams.
std::size_t choose_streams(std::span<const StreamsMeasured> measured);

// "2 streams: 310 rows/s, alone 3.1 ms; 1 stream: 160 rows/s, alone 3.0 ms".
std::string in_words(std::span<const StreamsMeasured> measured);

}  // namespace fastserve
