#include "backend/allowed_rows.h"

#include <gtest/gtest.h>

namespace fastserve {
namespace {

Status check(std::vector<std::int64_t> allowed, std::int64_t max_rows) {
  LoadSpec spec;
  spec.allowed_rows = std::move(allowed);
  return check_allowed_rows(spec, max_rows);
}

TEST(AllowedRows, Good) {
  EXPECT_TRUE(check({}, 8).is_ok());
  EXPECT_TRUE(check({}, 0).is_ok());
  EXPECT_TRUE(check({8}, 8).is_ok());
  EXPECT_TRUE(check({1, 3, 8}, 8).is_ok());
}

TEST(AllowedRows, BadOnesAreNamedWithGotAndWant) {
  EXPECT_EQ(check({1, 8}, 0).message(), "allowed_batch_sizes: got 2 sizes for a model that does not batch");
  EXPECT_EQ(check({0, 8}, 8).message(), "allowed_batch_sizes[0]: got 0, want 1 or more (ascending)");
  EXPECT_EQ(check({4, 4, 8}, 8).message(), "allowed_batch_sizes[1]: got 4, want 5 or more (ascending)");
  EXPECT_EQ(check({4, 2}, 2).message(), "allowed_batch_sizes[1]: got 2, want 5 or more (ascending)");
  EXPECT_EQ(check({1, 4}, 8).message(),
            "allowed_batch_sizes[1]: got 4, want 8, because the last one is the model's batch size");
  EXPECT_EQ(check({1, 9}, 8).code(), Code::kInvalidArgument);
}

TEST(AllowedRows, TheLastOneIsTheBatchSizeWhereNothingElseSaysIt) {
  LoadSpec spec;
  EXPECT_EQ(wanted_batch_rows(spec), -1);
  spec.allowed_rows = {2, 6};
  EXPECT_EQ(wanted_batch_rows(spec), 6);
  spec.max_batch_rows = 8;
  EXPECT_EQ(wanted_batch_rows(spec), 8);
}

}  // namespace
}  // namespace fastserve
