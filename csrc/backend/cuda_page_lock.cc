#include "backend/cuda_page_lock.h"

#include <mutex>
#include <string>

#include "backend/cuda_context.h"
#include "backend/cuda_fault.h"
#include "memory/pinned_ranges.h"

namespace fastserve {
namespace {

class CudaPageLock final : public PageLock {
 public:
  explicit CudaPageLock(CudaContext& context) : context_(context) {}

  Status lock(std::byte* begin, std::size_t bytes) override {
    if (any_device_fault()) return unavailable("a GPU of this process is lost");
    const CudaContext::Current current(context_);
    FS_RETURN_IF_ERROR(current.status());
    return to_status(context_.driver().mem_host_register(begin, bytes, CU_MEMHOSTREGISTER_PORTABLE),
                     "cuMemHostRegister of " + std::to_string(bytes) + " bytes");
  }

  void unlock(std::byte* begin) override {
    if (any_device_fault())
      return;  // a dead context is not called any more; the range stays locked until the process ends
    const CudaContext::Current current(context_);
    // Nothing can be done about a refusal: the range was locked by us, so it is the device that went.
    if (current.status().is_ok()) static_cast<void>(context_.driver().mem_host_unregister(begin));
  }

 private:
  CudaContext& context_;
};

std::mutex g_mutex;              // guards the pointer
CudaPageLock* g_lock = nullptr;  // never destroyed

}  // namespace

Status start_page_locks(int device) {
  CudaPageLock* lock = nullptr;
  {
    const std::lock_guard held(g_mutex);
    if (g_lock == nullptr) {
      FS_ASSIGN_OR_RETURN(CudaContext * context, CudaContext::of(device));
      g_lock = new CudaPageLock(*context);
    }
    lock = g_lock;
  }
  pinned_ranges().start(*lock);
  return Status::ok();
}

}  // namespace fastserve
