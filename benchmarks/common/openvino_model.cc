#include "common/openvino_model.h"

#include <map>
#include <stdexcept>

namespace fastserve::bench {

std::shared_ptr<ov::Model> read_with_batch(ov::Core& core, const std::string& path, std::int64_t batch) {
  std::shared_ptr<ov::Model> model = core.read_model(path);
  std::map<ov::Output<ov::Node>, ov::PartialShape> shapes;
  for (const auto& input : model->inputs()) {
    ov::PartialShape shape = input.get_partial_shape();
    shape[0] = batch;
    if (shape.is_dynamic())
      throw std::runtime_error("input " + input.get_any_name() + ": only the batch may be open");
    shapes[input] = shape;
  }
  model->reshape(shapes);
  return model;
}

}  // namespace fastserve::bench
