#include "model/plateau.h"

#include <gtest/gtest.h>

#include <vector>

namespace fastserve {
namespace {

// The size at which it is reached, 0 = never. `per_row`: run time per row at 1, 2, 4, ... rows.
std::int64_t reached_at(const std::vector<Nanos>& per_row) {
  Plateau plateau;
  std::int64_t rows = 1;
  for (const Nanos ns : per_row) {
    if (plateau.reached(rows, rows * ns)) return rows;
    rows *= 2;
  }
  return 0;
}

TEST(Plateau, IsNotReachedWhileEveryDoublingPays) {
  EXPECT_EQ(reached_at({1000, 700, 500, 350, 250, 170, 120}), 0);
}

TEST(Plateau, IsReachedAfterTwoDoublingsWithoutGain) {
  EXPECT_EQ(reached_at({1000, 800, 700, 600, 600, 600, 600}), 32);
}

TEST(Plateau, OneBadMeasurementDoesNotEndIt) {
  EXPECT_EQ(reached_at({1000, 800, 700, 900, 500, 400, 300}), 0);
}

TEST(Plateau, SmallSizesAreAlwaysKept) {
  EXPECT_EQ(reached_at({1000, 1000, 1000, 1000, 1000}), 8);
  EXPECT_EQ(reached_at({1000, 2000, 3000}), 0);
}

}  // namespace
}  // namespace fastserve
