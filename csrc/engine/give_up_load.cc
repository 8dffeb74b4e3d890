// A load that takes too long: forgotten at once, destroyed when it ends. A worker process that hangs in it is ended; native code
// cannot be: it is told to stop at its next step (LoadSpec::given_up).
#include "engine/engine_impl.h"

namespace fastserve {

bool Engine::give_up_load(std::string_view model, std::int64_t version) {
  const std::lock_guard lock(impl_->mutex);
  Impl::Record* const record = impl_->find_record(model, version);
  if (record == nullptr || !record->loading) return false;
  record->loading->give_up();
  record->loading.reset();  // the loader thread holds it
  const auto versions = impl_->models.find(model);
  if (record->empty()) versions->second.erase(version);
  if (versions->second.empty()) impl_->models.erase(versions);
  impl_->publish(model);
  return true;
}

// Loader thread. It was never published: nobody uses it.
Status Engine::Impl::finish_given_up(const std::shared_ptr<ModelVersion>& version, const Status& loaded) {
  if (loaded.is_ok()) retire(version, kNever);
  return {Code::kDeadlineExceeded, "model '" + version->name + "' version " +
                                       std::to_string(version->number) + ": the load was given up"};
}

}  // namespace fastserve
