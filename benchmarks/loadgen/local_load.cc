// A closed loop over the local transport, from one thread of one process: so many requests in flight, each answered one is
// submitted again. Prints what loadgen prints. Its requests are what the program finds in its slots: nothing is filled in or read,
// as loadgen sends the same bytes again and again.
#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "common/args.h"
#include "common/json.h"
#include "common/latency.h"
#include "common/process.h"
#include "fastserve_local.h"

namespace {

using namespace fastserve::bench;

constexpr std::string_view kHelp =
    "local_load --path SOCKET --model NAME [--rows 1] [--in-flight 1] [--seconds 3] [--warmup 0.5] [--cpu "
    "-1]\n"
    "           [--server-pid PID]\n";

[[noreturn]] void give_up(const char* what, const char* why) {
  std::fprintf(stderr, "%s: %s\n", what, why);
  std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  Args args(argc, argv, kHelp);
  const std::string path = args.text("--path");
  const std::string name = args.text("--model");
  const std::int64_t rows = args.integer("--rows", 1, 1, 1024);
  const std::int64_t in_flight = args.integer("--in-flight", 1, 1, 1024);
  const double seconds = args.real("--seconds", 3, 0.01, 1000);
  const double warmup = args.real("--warmup", 0.5, 0, 1000);
  const auto cpu = static_cast<int>(args.integer("--cpu", -1, -1, 4096));
  std::vector<pid_t> pids;
  for (const std::int64_t pid : args.integers("--server-pid", {})) pids.push_back(static_cast<pid_t>(pid));
  args.finish();
  pin_to_cpu(cpu);

  fsl_options options{};
  options.cells = 1024;
  fsl_connection* server = nullptr;
  const fsl_model* model = nullptr;
  if (fsl_connect(path.c_str(), &options, &server) != FSL_OK) give_up("connect", fsl_connect_error());
  if (fsl_open(server, name.c_str(), nullptr, &model) != FSL_OK) give_up("open", fsl_error(server));
  std::vector<std::int64_t> began(static_cast<std::size_t>(in_flight));
  for (std::size_t i = 0; i < began.size(); ++i) {
    fsl_slot* slot = nullptr;
    if (fsl_slot_create(server, model, rows, &slot) != FSL_OK) give_up("slot", fsl_error(server));
    fsl_slot_set_user(slot, &began[i]);
    began[i] = now_ns();
    if (fsl_submit(server, slot) != FSL_OK) give_up("submit", fsl_error(server));
  }
  const CpuClock server_cpu(pids);
  const CpuClock own_cpu({::getpid()});
  Latencies latencies;
  std::uint64_t errors = 0;
  bool measuring = false;
  std::int64_t start = now_ns();
  std::int64_t end = start + static_cast<std::int64_t>(warmup * 1e9);
  std::int64_t server_before = 0;
  std::int64_t own_before = 0;
  for (;;) {
    if (fsl_wait(server, 10'000'000) != FSL_OK) give_up("wait", fsl_error(server));
    const std::int64_t now = now_ns();  // of all that are answered now
    if (now >= end) {
      if (measuring) break;
      measuring = true;
      start = now;
      end = now + static_cast<std::int64_t>(seconds * 1e9);
      server_before = server_cpu.empty() ? 0 : server_cpu.now_ns();
      own_before = own_cpu.now_ns();
      latencies.clear();
      errors = 0;
    }
    fsl_slot* slot = nullptr;
    while (fsl_next(server, &slot) == FSL_OK && slot != nullptr) {
      auto& sent = *static_cast<std::int64_t*>(fsl_slot_user(slot));
      latencies.add(now - sent);
      if (fsl_slot_code(slot) != FSL_OK && errors++ == 0)
        std::fprintf(stderr, "%s\n", fsl_slot_message(slot));
      sent = now;
      if (fsl_submit(server, slot) != FSL_OK) give_up("submit", fsl_error(server));
    }
  }
  const double took = static_cast<double>(now_ns() - start) * 1e-9;
  const auto count = static_cast<double>(latencies.count());
  JsonObject out;
  out.add("requests", static_cast<std::uint64_t>(latencies.count()));
  out.add("errors", errors);
  out.add("qps", count / took);
  if (!server_cpu.empty()) {
    out.add("server_cpu_us_per_request",
            static_cast<double>(server_cpu.now_ns() - server_before) * 1e-3 / count);
  }
  out.add("client_cpu_us_per_request", static_cast<double>(own_cpu.now_ns() - own_before) * 1e-3 / count);
  latencies.report(out);
  std::printf("%s\n", out.str().c_str());
  fsl_close(server);
  return errors == 0 ? 0 : 1;
}
