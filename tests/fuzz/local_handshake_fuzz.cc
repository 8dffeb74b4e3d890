// libFuzzer: control messages of the local transport, both directions.
// fuzz-sources: csrc/local/local_handshake.cc csrc/tensor/*.cc csrc/base/status.cc
#include <cstdlib>

#include "local/local_handshake.h"

using namespace fastserve;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  if (size > kMostControlBytes) return 0;
  if (auto message = decode_client_message(bytes); message.is_ok() && !encode(*message).is_ok()) std::abort();
  if (auto message = decode_server_message(bytes); message.is_ok() && !encode(*message).is_ok()) std::abort();
  return 0;
}
