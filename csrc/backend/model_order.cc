#include "backend/model_order.h"

#include <utility>

namespace fastserve {

bool ModelOrder::enter(Place& place) {
  const std::lock_guard lock(mutex_);
  place.next = nullptr;
  place.inside = first_ == nullptr && (inside_ == 0 || model_ == place.model);
  if (place.inside) {
    model_ = place.model;
    ++inside_;
    return true;
  }
  (first_ == nullptr ? first_ : last_->next) = &place;
  last_ = &place;
  return false;
}

void ModelOrder::leave(Place& place) {
  Place* starts = nullptr;  // in their order
  {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(place.inside, false) || --inside_ != 0 || first_ == nullptr) return;
    model_ = first_->model;
    Place** end = &starts;
    while (first_ != nullptr && first_->model == model_) {
      first_->inside = true;
      ++inside_;
      *end = first_;
      end = &first_->next;
      first_ = first_->next;
    }
    *end = nullptr;
  }
  while (starts != nullptr) {
    Place* const next = starts->next;  // before start(): the run may end there, and its place be taken anew
    starts->start(*starts);
    starts = next;
  }
}

}  // namespace fastserve
