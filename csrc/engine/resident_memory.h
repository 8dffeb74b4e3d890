// The process's memory as the kernel counts it, and giving back what the allocator keeps after an unload.
// Thread: any; give_memory_back on a loader thread, as it may take milliseconds.
#pragma once

#include <cstdint>

namespace fastserve {

std::int64_t resident_bytes();  // 0: cannot be read

// Has the allocator return free pages of all its arenas to the system (malloc_trim), and the kernel join its mappings again
// (memory_policies.h). At most every kTrimPause: many small models that go one after the other cost one trim; what the last of
// them left is at most what is freed within the pause.
void give_memory_back();

// For the process, threads that allocate later: so many of malloc's arenas at most (mallopt(3), M_ARENA_MAX; 8 for each CPU where
// nobody says). What outlives a load lies scattered over the arenas of the threads that loaded, and holds their pages: figures
// in csrc/README.md, "An arena for each CPU".
void limit_malloc_arenas(int most);

}  // namespace fastserve
