// WarmUpSample and WarmUpInput: the model_warmup of a configuration, as Python hands it down.
#include <pybind11/stl.h>

#include <array>
#include <cstring>
#include <string_view>
#include <utility>

#include "batch/scheduling.h"
#include "bind/engine.h"
#include "bind/errors.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

using Fill = WarmUpInput::Fill;
constexpr std::array<std::pair<std::string_view, Fill>, 3> kFills{
    {{"zero", Fill::kZero}, {"random", Fill::kRandom}, {"data", Fill::kData}}};

Fill fill_of(const std::string& name) {
  for (const auto& [known, fill] : kFills) {
    if (known == name) return fill;
  }
  raise(invalid_argument("fill: got \"" + name + "\", want \"zero\", \"random\" or \"data\""));
}

std::string_view name_of(Fill fill) { return kFills[static_cast<std::size_t>(fill)].first; }

WarmUpInput make_input(std::string name, const std::string& datatype, const std::vector<std::int64_t>& shape,
                       const std::string& fill, const py::bytes& data) {
  const auto dtype = parse_dtype(datatype);
  if (!dtype)
    raise(invalid_argument("datatype: got \"" + datatype + "\", want an OIP datatype such as FP32"));
  if (shape.size() >= kMaxRank) {
    raise(invalid_argument("shape: got rank " + std::to_string(shape.size()) + ", want " +
                           std::to_string(kMaxRank - 1) + " or fewer"));
  }
  const auto given = static_cast<std::string_view>(data);
  const auto* begin = reinterpret_cast<const std::byte*>(given.data());
  WarmUpInput input{std::move(name), *dtype, Shape(shape), fill_of(fill), {begin, begin + given.size()}};
  if (input.fill != Fill::kData && !input.data.empty())
    raise(invalid_argument("data: got " + std::to_string(input.data.size()) +
                           " bytes, want none with fill \"" + fill + "\""));
  return input;
}

WarmUpSample make_sample(std::string name, std::int64_t rows, std::int64_t count,
                         std::vector<WarmUpInput> inputs) {
  return {std::move(name), rows, count, std::move(inputs)};
}

}  // namespace

void register_warm_up(py::module_& module) {
  py::class_<WarmUpInput>(module, "WarmUpInput")
      .def(py::init(&make_input), py::arg("name"), py::arg("datatype"), py::arg("shape"), py::kw_only(),
           py::arg("fill") = "zero", py::arg("data") = py::bytes())
      .def_readonly("name", &WarmUpInput::name)
      .def_property_readonly("datatype",
                             [](const WarmUpInput& self) { return std::string(dtype_name(self.dtype)); })
      .def_property_readonly("shape",
                             [](const WarmUpInput& self) {
                               const auto dims = self.shape.dims();
                               return std::vector<std::int64_t>(dims.begin(), dims.end());
                             })
      .def_property_readonly("fill", [](const WarmUpInput& self) { return name_of(self.fill); })
      .def_property_readonly("data", [](const WarmUpInput& self) {
        return py::bytes(reinterpret_cast<const char*>(self.data.data()), self.data.size());
      });
  py::class_<WarmUpSample>(module, "WarmUpSample")
      .def(py::init(&make_sample), py::kw_only(), py::arg("name") = "", py::arg("rows") = 1,
           py::arg("count") = 1, py::arg("inputs") = py::tuple())
      .def_readonly("name", &WarmUpSample::name)
      .def_readonly("rows", &WarmUpSample::rows)
      .def_readonly("count", &WarmUpSample::count)
      .def_readonly("inputs", &WarmUpSample::inputs);
}

}  // namespace fastserve::bind
