#include "base/status.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>

namespace fastserve {
namespace {

TEST(Status, EveryCodeHasItsOwnNameAndAnHttpStatus) {
  std::set<std::string_view> names;
  for (int i = 0; i <= 16; ++i) {
    const auto code = static_cast<Code>(i);
    EXPECT_TRUE(names.insert(code_name(code)).second) << i;
    EXPECT_GE(http_status(code), 200) << i;
    EXPECT_EQ(http_status(code) == 200, code == Code::kOk) << i;
  }
}

TEST(Status, ClientFaultsAreNever5xx) {
  for (const Code code : {Code::kInvalidArgument, Code::kNotFound, Code::kAlreadyExists, Code::kOutOfRange,
                          Code::kFailedPrecondition, Code::kCancelled, Code::kPermissionDenied}) {
    EXPECT_LT(http_status(code), 500) << code_name(code);
  }
  EXPECT_EQ(http_status(Code::kUnavailable), 503);
  EXPECT_EQ(http_status(Code::kDeadlineExceeded), 504);
}

TEST(Status, NumberOutsideTheEnumIsUnknown) { EXPECT_EQ(code_name(static_cast<Code>(99)), "UNKNOWN"); }

Result<std::unique_ptr<int>> half(int value) {
  if (value % 2 != 0) return invalid_argument("odd");
  return std::make_unique<int>(value / 2);
}

Result<int> quarter(int value) {
  FS_ASSIGN_OR_RETURN(const auto first, half(value));
  FS_ASSIGN_OR_RETURN(const auto second, half(*first));
  return *second;
}

TEST(Result, CarriesAValueOrTheReason) {
  EXPECT_EQ(quarter(12).value(), 3);
  EXPECT_EQ(quarter(6).status().message(), "odd");
  EXPECT_EQ(quarter(6).status().code(), Code::kInvalidArgument);
  EXPECT_TRUE(quarter(12).status().is_ok());
}

}  // namespace
}  // namespace fastserve
