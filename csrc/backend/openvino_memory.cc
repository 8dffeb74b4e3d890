#include "backend/openvino_memory.h"

#include <string.h>  // explicit_bzero

#include <string>
#include <utility>

namespace fastserve {
namespace {

// Hands out memory that is there already, and owns it together with every tensor that is made of it.
class HeldBytes {
 public:
  explicit HeldBytes(std::shared_ptr<WipedBytes> held) : held_(std::move(held)) {}
  void* allocate(std::size_t /*bytes*/, std::size_t /*alignment*/) { return held_->bytes().data(); }
  void deallocate(void* /*memory*/, std::size_t /*bytes*/, std::size_t /*alignment*/) noexcept {
    held_.reset();
  }
  bool is_equal(const HeldBytes& other) const { return held_ == other.held_; }

 private:
  std::shared_ptr<WipedBytes> held_;
};

}  // namespace

std::shared_ptr<ov::Model> read_model_in_memory(ov::Core& core, ModelBytes::Parts parts) {
  ov::Tensor weights;
  if (parts.weights != nullptr) {
    const ov::Shape shape{parts.weights->bytes().size()};
    weights = ov::Tensor(ov::element::u8, shape, ov::Allocator(HeldBytes(std::move(parts.weights))));
  }
  const auto text = parts.model->bytes();
  std::string model(reinterpret_cast<const char*>(text.data()), text.size());
  parts.model.reset();
  struct Wipe {
    std::string& text;
    ~Wipe() { explicit_bzero(text.data(), text.size()); }
  } const wipe{model};
  return core.read_model(model, weights);
}

}  // namespace fastserve
