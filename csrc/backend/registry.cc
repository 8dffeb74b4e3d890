#include "backend/registry.h"

#include <dlfcn.h>

#include "backend/guard.h"
#include "backend/identity.h"

namespace fastserve {
namespace {

std::string last_dl_error() {
  const char* words = ::dlerror();
  return words != nullptr ? words : "unknown reason";
}

// The shared object stays open for ever: its threads and static objects do not like to be unmapped.
Result<Backend*> open_plugin(const std::string& name, const std::string& path) {
  const std::string what = "backend '" + name + "' does not load: ";
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return Status(Code::kFailedPrecondition, what + last_dl_error());
  void* symbol = ::dlsym(library, kBackendEntryName);
  if (symbol == nullptr) return Status(Code::kFailedPrecondition, what + last_dl_error());
  const auto entry = reinterpret_cast<BackendEntry>(symbol);
  Backend* backend = entry();
  if (backend == nullptr) return Status(Code::kFailedPrecondition, what + "its entry returned no backend");
  return backend;
}

}  // namespace

BackendRegistry::BackendRegistry() { add(identity_backend()); }

void BackendRegistry::add(Backend& backend) {
  const std::lock_guard lock(mutex_);
  backends_.insert_or_assign(std::string(backend.name()), &backend);
}

void BackendRegistry::add_owned(std::unique_ptr<Backend> backend) {
  const std::lock_guard lock(mutex_);
  backends_.insert_or_assign(std::string(backend->name()), backend.get());
  owned_.push_back(std::move(backend));  // a former one stays: somebody may be loading with it
}

void BackendRegistry::add_plugin(std::string name, std::string shared_object_path) {
  const std::lock_guard lock(mutex_);
  plugins_.insert_or_assign(std::move(name), std::move(shared_object_path));
}

Result<Backend*> BackendRegistry::find(std::string_view name) {
  const std::lock_guard lock(mutex_);
  if (const auto known = backends_.find(name); known != backends_.end()) return known->second;
  const auto plugin = plugins_.find(name);
  if (plugin == plugins_.end()) {
    return unimplemented("backend: got \"" + std::string(name) + "\", which is not in this build");
  }
  auto opened =
      guarded("backend '" + plugin->first + "'", [&] { return open_plugin(plugin->first, plugin->second); });
  if (opened.is_ok()) backends_.emplace(plugin->first, opened.value());
  return opened;
}

}  // namespace fastserve
