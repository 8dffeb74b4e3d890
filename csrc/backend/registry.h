// Names to backends. Built-in ones are registered by the engine; the others are shared objects loaded when first needed
// (so that nothing of OpenVINO is in a process that serves none of its models).
// Thread: any (a lock; never on the hot path).
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"

namespace fastserve {

class BackendRegistry {
 public:
  BackendRegistry();  // knows "identity"

  void add(Backend& backend);                                         // lives longer than the registry
  void add_owned(std::unique_ptr<Backend> backend);                   // lives as long
  void add_plugin(std::string name, std::string shared_object_path);  // opened by the first find()
  // UNIMPLEMENTED when no such backend is known; FAILED_PRECONDITION with dlopen's words when its plug-in does not load.
  Result<Backend*> find(std::string_view name);

 private:
  std::mutex mutex_;
  std::map<std::string, Backend*, std::less<>> backends_;
  std::map<std::string, std::string, std::less<>> plugins_;
  std::vector<std::unique_ptr<Backend>> owned_;  // those of them that are its own
};

}  // namespace fastserve
