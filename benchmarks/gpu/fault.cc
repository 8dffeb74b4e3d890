// A kernel that writes out of bounds, in a process of its own: what its clients are told, and that the next process serves.
#include <dlfcn.h>

#include <cstdio>
#include <deque>

#include "backend/cuda_fault.h"
#include "gpu/rows.h"
#include "gpu/serving.h"

namespace fastserve::gpu_rows {
namespace {

constexpr int kRequests = 64;
constexpr float kPoison = 666;
constexpr int kExitCode = 70;  // as the server's

KernelModelSpec fragile(const Options& options) {
  KernelModelSpec spec;
  spec.kernels = options.kernels;
  spec.sizes = {1, 4};
  spec.nodes = 10;
  spec.node_ns = 50'000;
  spec.poison = kPoison;
  return spec;
}

// The simulated driver has no poke_if: the next kernel fails there instead.
void fail_on_simulated_driver() {
  void* library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  if (library == nullptr) return;
  using Fail = int (*)(const char*, unsigned, int);
  if (auto* fail = reinterpret_cast<Fail>(::dlsym(library, "simulated_cuda_fail")); fail != nullptr)
    (void)fail("run:scale", 3, CUDA_ERROR_ILLEGAL_ADDRESS);
  ::dlclose(library);
}

}  // namespace

// "healthy": no poison. Prints "ok N unavailable N other N".
int fault_child(const Options& options) {
  const KernelModelSpec spec = fragile(options);
  const bool healthy = options.argument == "healthy";
  Serving serving(spec, 2);
  CompletionQueue completions(CompletionQueue::Wake::kFutex);
  std::deque<RowRequest> requests;
  if (!healthy) fail_on_simulated_driver();
  int ok = 0;
  int unavailable = 0;
  int other = 0;
  int under_way = 0;
  for (int i = 0; i < kRequests; ++i) {
    requests.emplace_back(spec, 1, completions, !healthy && i == kRequests / 2 ? kPoison : 1.0F);
    const Status submitted = serving.submitter().submit(requests.back().request());
    if (submitted.is_ok()) {
      ++under_way;
    } else {
      ++(submitted.code() == Code::kUnavailable ? unavailable : other);
    }
  }
  serving.submitter().flush();
  const Nanos until = monotonic_now() + 60 * kSecond;
  while (under_way > 0 && monotonic_now() < until) {
    for (Response* response = completions.wait(until); response != nullptr;) {
      Response* next = response->next_in_intake;
      const Code code = response->status.code();
      ++(code == Code::kOk ? ok : code == Code::kUnavailable ? unavailable : other);
      if (code != Code::kOk && code != Code::kUnavailable && other == 1)
        std::fprintf(stderr, "gpu_rows: %s\n", response->status.message().c_str());
      --under_way;
      response = next;
    }
  }
  std::printf("ok %d unavailable %d other %d unanswered %d\n", ok, unavailable, other, under_way);
  std::fflush(stdout);
  // A dead context is not tidied up.
  if (any_device_fault()) ::_exit(under_way == 0 && other == 0 ? kExitCode : 1);
  for (RowRequest& request : requests) request.again();
  return ok == kRequests ? 0 : 1;
}

Outcome fault_row(const Options& options) {
  Outcome out(options);
  Options child = options;
  std::string said;
  child.argument = "poisoned";
  const int died = run_again(child, "fault-child", said);
  out.figures().add("poisoned", said).add("exit_code", died);
  child.argument = "healthy";
  const int served = run_again(child, "fault-child", said);
  out.figures().add("restarted", said).add("restarted_exit_code", served);
  out.gate(died == kExitCode, "every request answered, UNAVAILABLE after the fault, exit code 70");
  out.gate(served == 0, "the next process serves");
  return out;
}

}  // namespace fastserve::gpu_rows
