// What is published: the versions that are ready and what labels stand for.
#include <algorithm>

#include "engine/engine_impl.h"

namespace fastserve {

std::shared_ptr<const VersionTable> Engine::Impl::snapshot(std::uint64_t& generation_out) const {
  const std::lock_guard lock(table_mutex);
  generation_out = generation.load(std::memory_order_relaxed);
  return table;
}

void Engine::Impl::publish(std::string_view model) {
  auto fresh = std::make_shared<VersionTable>(*table);
  if (auto entry = published(model); entry != nullptr) {
    fresh->put(std::move(entry));
  } else {
    fresh->remove(model);
  }
  publish(std::move(fresh));
}

void Engine::Impl::publish(std::shared_ptr<const VersionTable> fresh) {
  const std::lock_guard lock(table_mutex);
  table.swap(fresh);
  generation.fetch_add(1, std::memory_order_release);  // partner: Submitter's acquire
}  // the lock is given back before the old table goes

std::shared_ptr<const PublishedModel> Engine::Impl::published(std::string_view model) const {
  const auto versions = models.find(model);
  const auto given = labels.find(model);
  if (versions == models.end() && given == labels.end()) return nullptr;
  auto entry = std::make_shared<PublishedModel>();
  entry->name = model;
  if (versions != models.end()) {
    for (const auto& [number, record] : versions->second) {
      entry->known.push_back(number);
      if (record.serving) entry->ready.push_back(record.serving);
    }
  }
  if (given != labels.end()) entry->set_labels(given->second);
  return entry;
}

Status Engine::set_labels(std::string_view model, std::vector<LabelSpec> labels) {
  if (model.empty()) return invalid_argument("name: got \"\", want a model name");
  FS_RETURN_IF_ERROR(check_labels(labels));
  const std::lock_guard lock(impl_->mutex);
  std::vector<std::shared_ptr<VersionLabel>> fresh;
  const auto before = impl_->labels.find(model);
  for (LabelSpec& spec : labels) {
    const VersionLabel* known = nullptr;
    if (before != impl_->labels.end()) {
      for (const auto& label : before->second) {
        if (label->spec().name == spec.name) known = label.get();
      }
    }
    fresh.push_back(std::make_shared<VersionLabel>(std::move(spec), known));
  }
  if (fresh.empty()) {
    if (before == impl_->labels.end()) return Status::ok();
    impl_->labels.erase(before);
  } else if (before != impl_->labels.end()) {
    before->second = std::move(fresh);
  } else {
    impl_->labels.emplace(model, std::move(fresh));
  }
  impl_->publish(model);
  return Status::ok();
}

std::vector<LabelStatus> Engine::labels() const {
  const std::lock_guard lock(impl_->mutex);
  std::vector<LabelStatus> out;
  for (const auto& [model, labels] : impl_->labels) {
    const std::size_t first = out.size();
    for (const auto& label : labels) {
      const LabelSpec& spec = label->spec();
      for (std::size_t i = 0; i < spec.targets.size(); ++i) {
        const LabelTarget& target = spec.targets[i];
        const auto* record = impl_->find_record(model, target.version);
        const bool ready = record != nullptr && record->serving != nullptr;
        out.push_back({model, spec.name, target.version, target.weight, ready, label->requests(i)});
      }
    }
    std::ranges::stable_sort(out.begin() + static_cast<std::ptrdiff_t>(first), out.end(), {},
                             &LabelStatus::label);
  }
  return out;
}

}  // namespace fastserve
