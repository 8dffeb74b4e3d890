// A model for measuring: a chain of kernels that take a known time, then y = 2 x. Its graph is made node by node, so neither a
// framework nor its warm-up is in the figures.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/cuda_source.h"
#include "gpu/calls.h"

namespace fastserve::gpu_rows {

struct KernelModelSpec {
  std::string kernels;              // path of the PTX
  std::int64_t columns = 64;        // FP32 of a row, in and out
  std::int64_t out_columns = 64;    // of the first `out_columns` of them
  std::vector<std::int64_t> sizes;  // to capture, the last one the most rows
  int nodes = 1;                    // kernels before the last one
  std::uint64_t node_ns = 0;        // each; 0: empty kernels
  float poison = 0;                 // not 0: a row with this value kills the device
  std::size_t weights_bytes = 0;    // allocated when it is opened
};

// Adds the chain's nodes for so many rows.
void add_nodes(Chain& chain, const Kernels& kernels, const KernelModelSpec& spec, std::int64_t rows,
               CUdeviceptr input, CUdeviceptr output);

// Backend "kernels".
std::unique_ptr<GraphSource> kernel_source(KernelModelSpec spec);

}  // namespace fastserve::gpu_rows
