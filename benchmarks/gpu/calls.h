// The driver's objects with an owner each, and errors as exceptions: a row that cannot run says so by one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backend/cuda_driver.h"

namespace fastserve::gpu_rows {

// Throws std::runtime_error with the driver's words.
void must(CUresult result, const char* what);
void must(const Status& status);

const DriverTable& cuda();  // throws: there is no driver
bool on_simulated_driver();
CUdevice first_device();

// The primary context of the first device, current on this thread from here on.
class Context {
 public:
  Context();
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
};

class HostBytes {  // page-locked
 public:
  explicit HostBytes(std::size_t bytes);
  ~HostBytes();
  HostBytes(const HostBytes&) = delete;
  HostBytes& operator=(const HostBytes&) = delete;
  std::byte* data() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }
  std::size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

class DeviceBytes {
 public:
  explicit DeviceBytes(std::size_t bytes);
  ~DeviceBytes();
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;
  CUdeviceptr address() const { return address_; }

 private:
  CUdeviceptr address_ = 0;
};

class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  CUstream get() const { return stream_; }
  void wait() const { must(cuda().stream_synchronize(stream_), "cuStreamSynchronize"); }

 private:
  CUstream stream_ = nullptr;
};

class Event {
 public:
  explicit Event(unsigned flags = CU_EVENT_DISABLE_TIMING);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  CUevent get() const { return event_; }
  void record(const Stream& stream) const {
    must(cuda().event_record(event_, stream.get()), "cuEventRecord");
  }
  bool came() const;  // does not wait
  void wait() const { must(cuda().event_synchronize(event_), "cuEventSynchronize"); }
  void spin() const {
    while (!came()) {
    }
  }

 private:
  CUevent event_ = nullptr;
};

// Kernels of kernels.cu.
class Kernels {
 public:
  explicit Kernels(const std::string& path);  // PTX; the simulated driver takes anything
  ~Kernels();
  Kernels(const Kernels&) = delete;
  Kernels& operator=(const Kernels&) = delete;
  CUfunction find(const char* name) const;  // nullptr: there is none
  CUfunction get(const char* name) const;   // throws

 private:
  CUmodule module_ = nullptr;
};

// Kernels one behind the other, as a graph and what is instantiated of it.
class Chain {
 public:
  Chain();
  ~Chain();
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;
  void add(CUfunction function, unsigned blocks, unsigned threads, std::span<void* const> parameters);
  void instantiate();
  CUgraph graph() const { return graph_; }
  void launch(const Stream& stream) const { must(cuda().graph_launch(exec_, stream.get()), "cuGraphLaunch"); }

 private:
  CUgraph graph_ = nullptr;
  CUgraphExec exec_ = nullptr;
  CUgraphNode last_ = nullptr;
};

}  // namespace fastserve::gpu_rows
