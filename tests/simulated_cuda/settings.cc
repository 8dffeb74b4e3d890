// What the environment says, and the functions of simulated_cuda.h that change it later.
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "simulated_cuda/world.h"

namespace simulated_cuda {

namespace {

std::int64_t* setting(Settings& settings, std::string_view name) {
  static const std::map<std::string_view, std::int64_t Settings::*> kSettings = {
      {"devices", &Settings::devices},
      {"init_result", &Settings::init_result},
      {"version", &Settings::version},
      {"memory_mb", &Settings::memory_mb},
      {"pinned_mb", &Settings::pinned_mb},
      {"compute_slots", &Settings::compute_slots},
      {"h2d_us", &Settings::h2d_us},
      {"d2h_us", &Settings::d2h_us},
      {"kernel_us", &Settings::kernel_us},
      {"bytes_per_us", &Settings::bytes_per_us},
      {"mig", &Settings::mig},
  };
  const auto found = kSettings.find(name);
  return found == kSettings.end() ? nullptr : &(settings.*found->second);
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) {
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

// "cuGraphLaunch:3:700,run:kernel:1:hang"; what is not understood is a mistake in a test: the process ends.
void add_faults(World& world, const std::string& text) {
  for (const std::string& part : split(text, ',')) {
    const std::size_t last = part.rfind(':');
    const std::size_t middle =
        last == std::string::npos || last == 0 ? std::string::npos : part.rfind(':', last - 1);
    if (middle == std::string::npos) std::abort();
    const std::string result = part.substr(last + 1);
    world.faults.push_back({part.substr(0, middle),
                            static_cast<unsigned>(std::stoul(part.substr(middle + 1))),
                            result == "hang" ? SIMULATED_HANG : std::stoi(result)});
  }
}

std::string environment(const std::string& name) {
  const char* text = std::getenv(name.c_str());
  return text == nullptr ? "" : text;
}

}  // namespace

void read_environment(World& world) {
  world.settings = {};
  for (const char* name : {"devices", "init_result", "version", "memory_mb", "pinned_mb", "compute_slots",
                           "h2d_us", "d2h_us", "kernel_us", "bytes_per_us", "mig"}) {
    std::string variable = std::string("SIMULATED_CUDA_") + name;
    for (char& letter : variable)
      letter = static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
    if (const std::string text = environment(variable); !text.empty())
      *setting(world.settings, name) = std::stoll(text);
  }
  for (const std::string& name : split(environment("SIMULATED_CUDA_MISSING"), ','))
    world.settings.missing.insert(name);
  world.faults.clear();
  add_faults(world, environment("SIMULATED_CUDA_FAULTS"));
  // As the driver has it: nothing between two commas hides what follows; only plain ordinals are understood here.
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (visible != nullptr) {
    std::int64_t shown = 0;
    for (const std::string& part : split(visible, ',')) {
      if (std::atoi(part.c_str()) < 0) break;
      ++shown;
    }
    world.settings.devices = std::min(world.settings.devices, shown);
  }
}

}  // namespace simulated_cuda

using namespace simulated_cuda;  // NOLINT: the control functions are C

extern "C" {

int simulated_cuda_set(const char* name, int64_t value) {
  World& all = world();
  const Lock lock(all.mutex);
  const std::string_view text(name);
  if (text.starts_with("missing:")) {
    if (value != 0) {
      all.settings.missing.insert(std::string(text.substr(8)));
    } else {
      all.settings.missing.erase(std::string(text.substr(8)));
    }
    return 0;
  }
  std::int64_t* found = setting(all.settings, text);
  if (found == nullptr) return -1;
  *found = value;
  all.changed.notify_all();
  return 0;
}

int64_t simulated_cuda_count(const char* counter) {
  World& all = world();
  const Lock lock(all.mutex);
  const std::string_view name(counter);
  const auto found = all.counters.find(name);
  if (found != all.counters.end()) return found->second;
  static const std::set<std::string_view> kCounters = {
      "unpinned_copies",
      "unpinned_bytes",
      "exec_overlaps",
      "exec_destroyed_running",
      "legacy_stream_calls",
      "out_of_bounds",
      "unsafe_calls_during_capture",
      "calls_in_host_functions",
      "unpinned_during_copy",
      "frees_while_busy",
  };
  if (name.starts_with("calls:") || name.starts_with("dead:") || kCounters.contains(name)) return 0;
  if (name == "device_bytes") {
    std::int64_t used = 0;
    for (const Device& device : all.devices) used += static_cast<std::int64_t>(device.used_bytes);
    return used;
  }
  if (name == "pinned_bytes") return static_cast<std::int64_t>(all.pinned_bytes);
  if (name == "pinned_ranges") return static_cast<std::int64_t>(all.pinned.size());
  if (name == "streams") return static_cast<std::int64_t>(all.streams.size());
  if (name == "events") return static_cast<std::int64_t>(all.events.size());
  if (name == "graphs") return static_cast<std::int64_t>(all.graphs.size());
  if (name == "execs") return static_cast<std::int64_t>(all.execs.size());
  if (name == "contexts") {
    std::int64_t retained = 0;
    for (const Device& device : all.devices) retained += device.retained;
    return retained;
  }
  if (name == "outstanding") {
    std::int64_t outstanding = 0;
    for (CUstream stream : all.streams) outstanding += static_cast<std::int64_t>(stream->queue.size());
    return outstanding;
  }
  return -1;
}

int simulated_cuda_fail(const char* where, unsigned nth, int result) {
  if (where == nullptr || nth == 0 || result == CUDA_SUCCESS) return -1;
  World& all = world();
  const Lock lock(all.mutex);
  all.faults.push_back({where, nth, result});
  return 0;
}

void simulated_cuda_let_go(void) {
  World& all = world();
  const Lock lock(all.mutex);
  ++all.hang_epoch;
  all.changed.notify_all();
}

int simulated_cuda_hold(int engine, int held) {
  if (engine < 0 || engine >= kEngines) return -1;
  World& all = world();
  const Lock lock(all.mutex);
  all.held[static_cast<std::size_t>(engine)] = held != 0;
  all.changed.notify_all();
  return 0;
}

size_t simulated_cuda_log(SimulatedLine* lines, size_t room) {
  World& all = world();
  const Lock lock(all.mutex);
  const std::size_t copied = std::min(room, all.log.size());
  if (copied > 0) std::memcpy(lines, all.log.data(), copied * sizeof(SimulatedLine));
  return all.log.size();
}

void simulated_cuda_clear_log(void) {
  World& all = world();
  const Lock lock(all.mutex);
  all.log.clear();
}

void* simulated_cuda_memory(uint64_t address, size_t bytes) {
  World& all = world();
  const Lock lock(all.mutex);
  return device_bytes(all, address, bytes);
}

void simulated_cuda_reset(void) {
  World& all = world();
  Lock lock(all.mutex);
  ++all.generation;
  for (Device& device : all.devices) kill(all, device, CUDA_ERROR_DEINITIALIZED);
  // Workers have let go of what they were doing.
  all.changed.wait(lock, [&] {
    if (all.working > 0) return false;
    for (const Device& device : all.devices) {
      for (const int busy : device.busy) {
        if (busy > 0) return false;
      }
    }
    return true;
  });
  for (Device& device : all.devices) {
    while (!device.allocations.empty()) free_allocation(device, device.allocations.begin()->first);
    device.dead = CUDA_SUCCESS;
    device.retained = 0;
    device.used_bytes = 0;
  }
  for (CUstream stream : all.streams) delete stream;
  for (CUevent event : all.events) delete event;
  for (CUmodule module : all.modules) delete module;
  all.streams.clear();
  all.events.clear();
  all.modules.clear();
  all.graphs.clear();
  all.execs.clear();
  all.captures.clear();
  for (const auto& [address, range] : all.pinned) {
    if (!range.registered) std::free(reinterpret_cast<void*>(address));  // NOLINT(performance-no-int-to-ptr)
  }
  all.pinned.clear();
  all.pinned_bytes = 0;
  all.counters.clear();
  all.log.clear();
  all.held = {};
  all.next_stream = 1;
  read_environment(all);
}

}  // extern "C"
