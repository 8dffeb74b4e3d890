// Memory that another process may take away under us: whoever maps a POSIX shared memory object reads SIGBUS from pages that
// its owner cuts off (ftruncate), or that the host has no room for. With the guard installed such a fault in a guarded range
// maps zero pages over the rest of the range, marks the range broken and goes on; any other SIGBUS goes to the former handler.
//
// The handler takes no lock: it reads a table of ranges whose entries have a sequence number each. It calls mmap, which is one
// system call on Linux. One process, one handler; ranges may be made without it (an embedded engine installs none).
#pragma once

#include <atomic>
#include <cstddef>

#include "base/status.h"

namespace fastserve {

struct RangeSlot;  // sigbus_guard.cc

// [begin, begin + bytes) of whole pages, as mapped. It must stay mapped while this lives, and be unmapped only when nobody
// touches it any more. Any thread.
class GuardedRange {
 public:
  GuardedRange() = default;
  GuardedRange(std::byte* begin, std::size_t bytes);  // throws std::bad_alloc
  ~GuardedRange();
  GuardedRange(GuardedRange&& other) noexcept;
  GuardedRange& operator=(GuardedRange&& other) noexcept;
  GuardedRange(const GuardedRange&) = delete;
  GuardedRange& operator=(const GuardedRange&) = delete;

  // Some of it was not there when it was touched: from there on it has zeros, and is not shared any more. Stays true.
  bool broken() const;

 private:
  RangeSlot* slot_ = nullptr;
};

// For the process; again does nothing. INTERNAL when the system refuses.
Status install_sigbus_guard();

}  // namespace fastserve
