#include "memory/sigbus_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <utility>

namespace fastserve {

// Written by one thread at a time (the mutex below), read by the handler at any moment.
struct RangeSlot {
  std::atomic<std::uint32_t> sequence{0};  // odd while begin and end change
  std::atomic<std::uintptr_t> begin{0};    // 0: free
  std::atomic<std::uintptr_t> end{0};
  std::atomic<bool> broken{false};  // release by the handler, acquire by broken()
  bool taken = false;               // guarded by the mutex
};

namespace {

// Grows only: as many as ranges ever lived at the same time.
struct Chunk {
  RangeSlot slots[64];
  std::atomic<Chunk*> next{nullptr};
};

constinit Chunk g_first;
constinit std::mutex g_mutex;
constinit struct sigaction g_previous {};
constinit bool g_installed = false;  // guarded by the mutex

RangeSlot& take_slot() {
  for (Chunk* chunk = &g_first;; chunk = chunk->next.load(std::memory_order_relaxed)) {
    for (RangeSlot& slot : chunk->slots) {
      if (!std::exchange(slot.taken, true)) return slot;
    }
    // Release: the handler sees it built.
    if (chunk->next.load(std::memory_order_relaxed) == nullptr) {
      chunk->next.store(new Chunk, std::memory_order_release);
    }
  }
}

// Sequentially consistent throughout: ranges change rarely, and then no reader sees the halves of two of them as one.
void set_range(RangeSlot& slot, std::uintptr_t begin, std::uintptr_t end) {
  slot.sequence.fetch_add(1, std::memory_order_seq_cst);
  slot.begin.store(begin, std::memory_order_seq_cst);
  slot.end.store(end, std::memory_order_seq_cst);
  slot.broken.store(false, std::memory_order_seq_cst);
  slot.sequence.fetch_add(1, std::memory_order_seq_cst);
}

// In the handler. The range that somebody touches right now does not change, so passing over one that does loses nothing.
RangeSlot* find_range(std::uintptr_t at, std::uintptr_t& end) {
  for (Chunk* chunk = &g_first; chunk != nullptr; chunk = chunk->next.load(std::memory_order_acquire)) {
    for (RangeSlot& slot : chunk->slots) {
      const std::uint32_t sequence = slot.sequence.load(std::memory_order_seq_cst);
      const std::uintptr_t begin = slot.begin.load(std::memory_order_seq_cst);
      end = slot.end.load(std::memory_order_seq_cst);
      if ((sequence & 1U) != 0 || slot.sequence.load(std::memory_order_seq_cst) != sequence) continue;
      if (begin != 0 && at >= begin && at < end) return &slot;
    }
  }
  return nullptr;
}

bool heal(void* address) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  std::uintptr_t end = 0;
  RangeSlot* slot = find_range(at, end);
  if (slot == nullptr) return false;
  slot->broken.store(true, std::memory_order_release);
  const auto page = at & ~(static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE)) - 1);
  // To the end: what lies behind a cut is gone as well. The bare system call: what others hook into mmap (sanitizers, profilers)
  // is not made for signal handlers.
  return ::syscall(SYS_mmap, page, end - page, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != -1;
}

void pass_on(int number, siginfo_t* info, void* context) {
  if ((g_previous.sa_flags & SA_SIGINFO) != 0) return g_previous.sa_sigaction(number, info, context);
  if (g_previous.sa_handler == SIG_IGN && info->si_code <= 0) return;  // somebody's kill()
  if (g_previous.sa_handler != SIG_DFL && g_previous.sa_handler != SIG_IGN) {
    return g_previous.sa_handler(number);
  }
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  ::sigaction(number, &standard, nullptr);
  ::raise(number);  // comes when this handler returns
}

void on_sigbus(int number, siginfo_t* info, void* context) {
  const int before = errno;
  const bool ours = info->si_code > 0 && heal(info->si_addr);
  errno = before;
  if (!ours) pass_on(number, info, context);
}

}  // namespace

GuardedRange::GuardedRange(std::byte* begin, std::size_t bytes) {
  const std::lock_guard lock(g_mutex);
  slot_ = &take_slot();
  const auto at = reinterpret_cast<std::uintptr_t>(begin);
  set_range(*slot_, at, at + bytes);
}

GuardedRange::~GuardedRange() {
  if (slot_ == nullptr) return;
  const std::lock_guard lock(g_mutex);
  set_range(*slot_, 0, 0);
  slot_->taken = false;
}

GuardedRange::GuardedRange(GuardedRange&& other) noexcept : slot_(std::exchange(other.slot_, nullptr)) {}

GuardedRange& GuardedRange::operator=(GuardedRange&& other) noexcept {
  std::swap(slot_, other.slot_);
  return *this;
}

bool GuardedRange::broken() const {
  return slot_ != nullptr && slot_->broken.load(std::memory_order_acquire);
}

Status install_sigbus_guard() {
  const std::lock_guard lock(g_mutex);
  if (g_installed) return Status::ok();
  struct sigaction action {};
  action.sa_sigaction = &on_sigbus;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  ::sigemptyset(&action.sa_mask);
  // First the former one: a signal may come as soon as ours stands.
  if (::sigaction(SIGBUS, nullptr, &g_previous) != 0 || ::sigaction(SIGBUS, &action, nullptr) != 0) {
    return internal_error(std::string("cannot install a handler for SIGBUS: ") + std::strerror(errno));
  }
  g_installed = true;
  return Status::ok();
}

}  // namespace fastserve
