// A model that lies in memory instead of in files: a protected one, which was decrypted for this load and shall leave no trace.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <span>

namespace fastserve {

// Memory that is overwritten before it is given back, and that a core dump leaves out where the system allows it. Owner: one.
class WipedBytes {
 public:
  WipedBytes() = default;
  explicit WipedBytes(std::span<const std::byte> source);  // copies; throws std::bad_alloc
  ~WipedBytes();
  WipedBytes(const WipedBytes&) = delete;
  WipedBytes& operator=(const WipedBytes&) = delete;

  std::span<std::byte> bytes() { return {data_, size_}; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// What LoadSpec::in_memory points at. The specification of a version is kept as long as the version; its bytes are not: whoever
// loads takes them, once. Any thread.
class ModelBytes {
 public:
  struct Parts {
    std::shared_ptr<WipedBytes> model;    // model.xml, model.onnx
    std::shared_ptr<WipedBytes> weights;  // model.bin; nullptr: there is none
  };

  ModelBytes(std::span<const std::byte> model, std::span<const std::byte> weights);
  // Nothing the second time.
  Parts take();

 private:
  std::mutex mutex_;
  Parts parts_;
};

}  // namespace fastserve
