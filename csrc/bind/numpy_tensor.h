// numpy arrays <-> tensors. Interpreter lock held in all of these.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <vector>

#include "base/status.h"
#include "batch/request.h"
#include "tensor/signature.h"
#include "tensor/tensor.h"

namespace fastserve::bind {

// Fills request.inputs from {name: array}. Contiguous little-endian arrays are borrowed (`keep` holds them); others, and
// strings (object, S and U arrays -> BYTES), are copied once. ml_dtypes' bfloat16 is BF16.
// INVALID_ARGUMENT names the input and the dtype that has no counterpart.
Status bind_inputs(const pybind11::dict& arrays, Request& request, std::vector<pybind11::object>& keep);

// {name: array} of the response's outputs, copied. BYTES become object arrays of `bytes`; BF16 becomes float32 (exact),
// because numpy has no bfloat16 of its own.
pybind11::dict copy_outputs(const Response& response, const Signature& signature);

}  // namespace fastserve::bind
