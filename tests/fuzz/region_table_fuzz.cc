// libFuzzer target: the region table against its model (tests/csrc/memory/region_table_walk.h).
// fuzz-sources: csrc/memory/region*.cc csrc/memory/pinned_ranges.cc csrc/memory/sigbus_guard.cc csrc/base/status.cc csrc/base/log.cc
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

#include "memory/region_table_walk.h"

namespace {

// Unlinked at exit; the object is the same for all inputs.
class Object {
 public:
  Object() {
    const int fd = ::shm_open(key.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0 || ::ftruncate(fd, fastserve::RegionTableWalk::kObjectBytes) != 0) std::abort();
    ::close(fd);
  }
  ~Object() { ::shm_unlink(key.c_str()); }
  const std::string key = "/fs-fuzz-" + std::to_string(::getpid());
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Object object;
  fastserve::RegionTableWalk(object.key, [](const char*) { std::abort(); }).run({data, size});
  return 0;
}
