// The smallest complete backend: outputs are the inputs. The tutorial for authors of backends, and the test double of
// everything above. Reads no file; inputs and outputs come from the LoadSpec, the i-th output gets the i-th input.
//
// Parameters (whole numbers >= 0, microseconds per execution):
//   execute_delay_us   the device takes so long: the instance waits without using the CPU
//   execute_burn_us    the device is this CPU: the instance computes for so long
#pragma once

#include "backend/backend.h"

namespace fastserve {

Backend& identity_backend();

}  // namespace fastserve
