// What the encoders check of a model's response parameters: neither protobuf's strings nor JSON take other bytes than UTF-8.
#pragma once

#include <string>
#include <variant>

#include "base/status.h"
#include "batch/request.h"
#include "codec/json_writer.h"

namespace fastserve {

// INTERNAL: the model's fault.
inline Status check_utf8(const ResponseParameter& parameter) {
  const auto* text = std::get_if<std::string>(&parameter.value);
  if (is_utf8(parameter.name) && (text == nullptr || is_utf8(*text))) return Status::ok();
  return internal_error("the model's response parameters are not UTF-8");
}

}  // namespace fastserve
