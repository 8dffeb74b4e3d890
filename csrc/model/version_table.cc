#include "model/version_table.h"

#include <algorithm>
#include <charconv>

namespace fastserve {
namespace {

std::string unknown_model(std::string_view model) {
  constexpr std::size_t kEchoBytes = 128;  // errors do not amplify what a client sent
  return "Request for unknown model: '" + std::string(model.substr(0, kEchoBytes)) + "'";
}

// Why a version that is named is not ready.
Status not_ready(const VersionTable::Versions& versions, std::string_view model, std::string_view version) {
  std::int64_t number = -1;
  const auto [end, error] = std::from_chars(version.data(), version.data() + version.size(), number);
  if (error != std::errc() || end != version.data() + version.size()) {
    return invalid_argument("model_version: got \"" + std::string(version.substr(0, 128)) +
                            "\", want a whole number");
  }
  const std::string what = unknown_model(model) + " version " + std::to_string(number);
  if (std::ranges::find(versions.known, number) == versions.known.end())
    return not_found(what + " is not found");
  return unavailable(what + " is not at ready state");
}

}  // namespace

void VersionTable::add_known(const std::string& model, std::int64_t version) {
  models_[model].known.push_back(version);
}

void VersionTable::add_ready(std::shared_ptr<ModelVersion> version) {
  models_[version->name].ready.push_back(std::move(version));
}

Result<ModelVersion*> VersionTable::find(std::string_view model, std::string_view version) const {
  if (refuses_) return unavailable("the server is shutting down");
  const auto found = models_.find(model);
  if (found == models_.end()) return not_found(unknown_model(model) + " is not found");
  const Versions& versions = found->second;
  if (version.empty() || version == "-1") {
    if (versions.ready.empty()) return not_found(unknown_model(model) + " has no available versions");
    return versions.ready.back().get();
  }
  for (const auto& ready : versions.ready) {
    if (ready->number_text == version) return ready.get();
  }
  return not_ready(versions, model, version);
}

}  // namespace fastserve
