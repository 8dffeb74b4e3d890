#include "model/version_table.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <numeric>

#include "batch/request.h"

namespace fastserve {
namespace {

constexpr std::size_t kEchoBytes = 128;  // errors do not amplify what a client sent
constexpr std::size_t kFewestPlaces = 8;

std::string unknown_model(std::string_view model) {
  return "Request for unknown model: '" + std::string(model.substr(0, kEchoBytes)) + "'";
}

bool names_none(std::string_view version) { return version.empty() || version == "-1"; }

Status label_not_ready(const PublishedModel& model, const LabelSpec& label) {
  std::string versions;
  for (const LabelTarget& target : label.targets) {
    if (target.weight != 0) versions += (versions.empty() ? "" : ", ") + std::to_string(target.version);
  }
  const bool several = versions.find(',') != std::string::npos;
  return {Code::kFailedPrecondition, "model '" + model.name + "' label '" + label.name + "': version" +
                                         (several ? "s " : " ") + versions + (several ? " are" : " is") +
                                         " not at ready state"};
}

// Why a version that is named is not ready.
Status not_ready(const PublishedModel& model, std::string_view version) {
  std::int64_t number = -1;
  const auto [end, error] = std::from_chars(version.data(), version.data() + version.size(), number);
  if (error != std::errc() || end != version.data() + version.size()) {
    return invalid_argument("failed to get model version from specified version string '" +
                            std::string(version.substr(0, kEchoBytes)) +
                            "': model_version: want a whole number or a label of model '" + model.name + "'");
  }
  const std::string what = unknown_model(model.name) + " version " + std::to_string(number);
  if (std::ranges::find(model.known, number) == model.known.end()) return not_found(what + " is not found");
  return unavailable(what + " is not at ready state");
}

// About total / 1.618, prime to it: consecutive turns are far apart, and every place is met once in `total` turns.
std::uint64_t golden_step(std::uint64_t total) {
  auto step = static_cast<std::uint64_t>(std::llround(static_cast<double>(total) * 0.6180339887498949));
  while (std::gcd(step, total) != 1) ++step;
  return step;
}

__extension__ using Wide = unsigned __int128;

}  // namespace

LabelRoute::LabelRoute(std::shared_ptr<VersionLabel> label_in,
                       const std::vector<std::shared_ptr<ModelVersion>>& ready)
    : label(std::move(label_in)) {
  const std::vector<LabelTarget>& targets = label->spec().targets;
  std::int64_t divisor = 0;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const auto version =
        std::ranges::find(ready, targets[i].version, [](const auto& v) { return v->number; });
    if (version == ready.end() || targets[i].weight == 0) continue;
    divisor = std::gcd(divisor, targets[i].weight);
    total += static_cast<std::uint64_t>(targets[i].weight);
    shares.push_back({version->get(), i, total});
  }
  if (shares.empty()) return;
  for (Share& share : shares) share.end /= static_cast<std::uint64_t>(divisor);
  total /= static_cast<std::uint64_t>(divisor);
  step = golden_step(total);
}

const LabelRoute::Share& LabelRoute::choose(std::optional<std::uint64_t> bits, unsigned shard) const {
  if (shares.size() == 1) return shares.front();
  const std::uint64_t at = bits ? static_cast<std::uint64_t>((static_cast<Wide>(*bits) * total) >> 64U)
                                : label->take_turn(shard) % total * step % total;
  for (const Share& share : shares) {
    if (at < share.end) return share;
  }
  return shares.back();
}

const LabelRoute::Share& LabelRoute::heaviest() const {
  return *std::ranges::max_element(
      shares, {}, [this](const Share& share) { return label->spec().targets[share.target].weight; });
}

void PublishedModel::set_labels(const std::vector<std::shared_ptr<VersionLabel>>& given) {
  labels.clear();
  for (const auto& label : given) labels.emplace_back(label, ready);
  std::ranges::sort(labels, {}, [](const LabelRoute& route) { return route.label->spec().name; });
  unnamed = find_label(kDefaultLabel);
  if (unnamed != nullptr && unnamed->shares.empty()) unnamed = nullptr;
}

const LabelRoute* PublishedModel::find_label(std::string_view wanted) const {
  const auto named = [](const LabelRoute& route) -> std::string_view { return route.label->spec().name; };
  const auto found = std::ranges::lower_bound(labels, wanted, {}, named);
  return found != labels.end() && named(*found) == wanted ? &*found : nullptr;
}

Result<ModelVersion*> PublishedModel::find(std::string_view version) const {
  if (names_none(version)) {
    if (unnamed != nullptr) return unnamed->heaviest().version;
    if (!ready.empty()) return ready.back().get();
    if (known.empty()) return not_found(unknown_model(name) + " is not found");
    return not_found(unknown_model(name) + " has no available versions");
  }
  for (const auto& each : ready) {
    if (each->number_text == version) return each.get();
  }
  if (const LabelRoute* const route = find_label(version); route != nullptr) {
    if (route->shares.empty()) return label_not_ready(*this, route->label->spec());
    return route->heaviest().version;
  }
  if (known.empty()) return not_found(unknown_model(name) + " is not found");
  return not_ready(*this, version);
}

std::size_t VersionTable::place_of(std::string_view model) const {
  const std::size_t mask = places_.size() - 1;
  std::size_t at = std::hash<std::string_view>{}(model)&mask;
  while (places_[at] != nullptr && places_[at]->name != model) at = (at + 1) & mask;
  return at;
}

void VersionTable::grow(std::size_t places) {
  auto old = std::exchange(places_, std::vector<std::shared_ptr<const PublishedModel>>(places));
  for (auto& model : old) {
    if (model != nullptr) places_[place_of(model->name)] = std::move(model);
  }
}

void VersionTable::put(std::shared_ptr<const PublishedModel> model) {
  if (places_.size() < 2 * (count_ + 1)) grow(std::max(kFewestPlaces, 2 * places_.size()));
  auto& place = places_[place_of(model->name)];
  if (place == nullptr) ++count_;
  place = std::move(model);
}

void VersionTable::remove(std::string_view model) {
  if (places_.empty()) return;
  auto& place = places_[place_of(model)];
  if (place == nullptr) return;
  place.reset();
  --count_;
  grow(places_.size());  // what stood behind it may have to move up
}

Result<const PublishedModel*> VersionTable::find_model(std::string_view model) const {
  if (refuses_) return unavailable("the server is shutting down");
  const PublishedModel* const found = places_.empty() ? nullptr : places_[place_of(model)].get();
  if (found == nullptr) return not_found(unknown_model(model) + " is not found");
  return found;
}

Result<VersionTable::Chosen> VersionTable::choose(const Request& request, unsigned shard) const {
  FS_ASSIGN_OR_RETURN(const PublishedModel* const model, find_model(request.model_name));
  const std::string_view version = request.model_version;
  const LabelRoute* route = nullptr;
  if (names_none(version)) {
    route = model->unnamed;
    if (route == nullptr && !model->ready.empty()) return Chosen{model->ready.back().get(), nullptr};
  } else if (!model->labels.empty()) {
    route = model->find_label(version);
  }
  if (route != nullptr && !route->shares.empty()) {
    const bool open = route->shares.size() > 1;
    const LabelRoute::Share& share = route->choose(open ? routing_bits(request) : std::nullopt, shard);
    return Chosen{share.version, &route->label->counter(share.target, shard)};
  }
  FS_ASSIGN_OR_RETURN(ModelVersion* const found, model->find(version));
  return Chosen{found, nullptr};
}

Result<ModelVersion*> VersionTable::find(std::string_view name, std::string_view version) const {
  FS_ASSIGN_OR_RETURN(const PublishedModel* const model, find_model(name));
  return model->find(version);
}

}  // namespace fastserve
