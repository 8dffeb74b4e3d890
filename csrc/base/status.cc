#include "base/status.h"

#include <array>

namespace fastserve {
namespace {

struct CodeRow {
  std::string_view name;
  int http;
};

// Row number = code number. The one table of the C++ side; tests/csrc/base walks it.
constexpr std::array<CodeRow, 17> kCodes{{
    {"OK", 200},
    {"CANCELLED", 400},
    {"UNKNOWN", 400},
    {"INVALID_ARGUMENT", 400},
    {"DEADLINE_EXCEEDED", 504},
    {"NOT_FOUND", 404},
    {"ALREADY_EXISTS", 400},
    {"PERMISSION_DENIED", 403},
    {"RESOURCE_EXHAUSTED", 429},
    {"FAILED_PRECONDITION", 400},
    {"ABORTED", 409},
    {"OUT_OF_RANGE", 400},
    {"UNIMPLEMENTED", 501},
    {"INTERNAL", 500},
    {"UNAVAILABLE", 503},
    {"DATA_LOSS", 500},
    {"UNAUTHENTICATED", 401},
}};

const CodeRow& row(Code code) {
  const auto index = static_cast<std::size_t>(code);
  return kCodes[index < kCodes.size() ? index : static_cast<std::size_t>(Code::kUnknown)];
}

}  // namespace

std::string_view code_name(Code code) { return row(code).name; }
int http_status(Code code) { return row(code).http; }

}  // namespace fastserve
