// Errors as values. Codes are numbered as gRPC's (https://grpc.io/docs/guides/status-codes/), so that the
// gRPC front end sends them as they are and every other protocol maps from one table.
// Thread: value types, no sharing. The OK path allocates nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace fastserve {

enum class Code : std::uint8_t {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

// "INVALID_ARGUMENT" and so on; "UNKNOWN" for a number outside the enum.
std::string_view code_name(Code code);

// The HTTP status for a code, as Triton's REST front end has it (CANCELLED and ALREADY_EXISTS are 400;
// UNIMPLEMENTED 501; UNAVAILABLE 503), except that a passed deadline is 504.
int http_status(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  static Status ok() { return {}; }

  bool is_ok() const { return code_ == Code::kOk; }
  explicit operator bool() const { return is_ok(); }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

  // Seconds after which another try may go well, of UNAVAILABLE; 0: not known.
  std::uint16_t retry_after_s() const { return retry_after_s_; }
  void set_retry_after_s(std::uint16_t seconds) { retry_after_s_ = seconds; }

  // The same with another text.
  Status worded(std::string message) const {
    Status out = *this;
    out.message_ = std::move(message);
    return out;
  }

 private:
  Code code_ = Code::kOk;
  std::uint16_t retry_after_s_ = 0;
  std::string message_;
};

inline Status invalid_argument(std::string message) { return {Code::kInvalidArgument, std::move(message)}; }
inline Status not_found(std::string message) { return {Code::kNotFound, std::move(message)}; }
inline Status unavailable(std::string message) { return {Code::kUnavailable, std::move(message)}; }
inline Status internal_error(std::string message) { return {Code::kInternal, std::move(message)}; }
inline Status unimplemented(std::string message) { return {Code::kUnimplemented, std::move(message)}; }

// A value or the reason why there is none. Reading the value of a failed result is a programming error.
template <class T>
class [[nodiscard]] Result {
 public:
  // NOLINTBEGIN(google-explicit-constructor): `return value;` and `return status;` are the point
  Result(T value) : held_(std::in_place_index<1>, std::move(value)) {}
  Result(Status status) : held_(std::in_place_index<0>, std::move(status)) {}
  // NOLINTEND(google-explicit-constructor)

  bool is_ok() const { return held_.index() == 1; }
  explicit operator bool() const { return is_ok(); }
  Status status() const { return is_ok() ? Status::ok() : std::get<0>(held_); }
  T& value() & { return std::get<1>(held_); }
  const T& value() const& { return std::get<1>(held_); }
  T&& value() && { return std::get<1>(std::move(held_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<Status, T> held_;
};

#define FS_CONCAT_INNER(a, b) a##b
#define FS_CONCAT(a, b) FS_CONCAT_INNER(a, b)

#define FS_RETURN_IF_ERROR(expr)                                                         \
  do {                                                                                   \
    if (::fastserve::Status fs_status_ = (expr); !fs_status_.is_ok()) return fs_status_; \
  } while (false)

#define FS_ASSIGN_OR_RETURN(decl, expr) FS_ASSIGN_OR_RETURN_INNER(FS_CONCAT(fs_result_, __LINE__), decl, expr)
#define FS_ASSIGN_OR_RETURN_INNER(tmp, decl, expr) \
  auto tmp = (expr);                               \
  if (!tmp.is_ok()) return tmp.status();           \
  decl = std::move(tmp).value()

}  // namespace fastserve
