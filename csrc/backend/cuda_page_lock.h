// Page-locking through the CUDA driver: cuMemHostRegister with CU_MEMHOSTREGISTER_PORTABLE, so that a range serves every device of
// the process. READ_ONLY is not asked for: all our mappings are written too (answers go to clients' regions).
// Once a device is lost (cuda_fault.h) the driver is not called any more: ranges stay locked until the process ends.
// Thread: any. It makes the primary context of the first device in use current for the call and puts back what was.
#pragma once

#include "base/status.h"

namespace fastserve {

// A device came up: pinned_ranges() locks with the driver from here on; regions of clients that wait are locked now, which takes
// milliseconds each. Loader thread, after cuInit; again, also for another device, does nothing. Errors: as cuda_driver() has them,
// UNAVAILABLE for a device whose context cannot be had; then memory stays pageable.
Status start_page_locks(int device);

}  // namespace fastserve
