#include "backend/tune_cache.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace fastserve {
namespace {

namespace fs = std::filesystem;

class TuneCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ =
        fs::temp_directory_path() / ("fastserve_tune_" + std::to_string(::getpid()) + "_" + test->name());
  }
  void TearDown() override { fs::remove_all(folder_); }

  TuneCache cache() const { return TuneCache((folder_ / "deep" / "er").string()); }
  std::string content() const {
    std::ostringstream text;
    text << std::ifstream(cache().file_of(kKey)).rdbuf();
    return text.str();
  }
  void replace(const std::string& text) const { std::ofstream(cache().file_of(kKey)) << text; }

  static constexpr const char* kKey = "model 1234\ncpu some CPU\nthreads 2\n";
  const TunedShape shape_{2, 8, "2 streams: 310 rows/s", Lone::kOwn, "alone 3 ms"};
  fs::path folder_;
};

TEST_F(TuneCacheTest, GivesBackWhatWasStored) {
  EXPECT_EQ(cache().find(kKey), std::nullopt);
  ASSERT_TRUE(cache().store(kKey, shape_).is_ok());
  EXPECT_EQ(cache().find(kKey), shape_);
  EXPECT_EQ(cache().find("model 1234\ncpu another CPU\nthreads 2\n"), std::nullopt);
  ASSERT_TRUE(cache().store(kKey, {4, 0, "", Lone::kShared, ""}).is_ok());
  EXPECT_EQ(cache().find(kKey), (TunedShape{4, 0, "", Lone::kShared, ""}));
}

TEST_F(TuneCacheTest, NothingIsLeftBesideTheFile) {
  ASSERT_TRUE(cache().store(kKey, shape_).is_ok());
  ASSERT_TRUE(cache().store(kKey, shape_).is_ok());
  const auto files = fs::directory_iterator(folder_ / "deep" / "er");
  EXPECT_EQ(std::distance(fs::begin(files), fs::end(files)), 1);
}

TEST_F(TuneCacheTest, AFileOfAnotherKeyIsNoAnswer) {
  ASSERT_TRUE(cache().store(kKey, shape_).is_ok());
  const std::string other = "model 9999\n";
  fs::copy_file(cache().file_of(kKey), cache().file_of(other));  // as if the hashes were equal
  EXPECT_EQ(cache().find(other), std::nullopt);
}

TEST_F(TuneCacheTest, EveryCutAndEveryChangedByteCountsAsAbsentOrIsHarmless) {
  ASSERT_TRUE(cache().store(kKey, shape_).is_ok());
  const std::string good = content();
  for (std::size_t length = 0; length < good.size(); ++length) {
    replace(good.substr(0, length));
    EXPECT_EQ(cache().find(kKey), std::nullopt) << length;
  }
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    replace(bad);
    if (const auto found = cache().find(kKey)) {
      EXPECT_GE(found->streams, 1);
      EXPECT_GE(found->most_rows, 0);
    }
  }
  replace(good + "more");
  EXPECT_EQ(cache().find(kKey), std::nullopt);
}

TEST_F(TuneCacheTest, ACorruptFileIsReplaced) {
  ASSERT_TRUE(cache().store(kKey, shape_).is_ok());
  replace("garbage");
  EXPECT_EQ(cache().find(kKey), std::nullopt);
  ASSERT_TRUE(cache().store(kKey, shape_).is_ok());
  EXPECT_EQ(cache().find(kKey), shape_);
}

TEST_F(TuneCacheTest, NumbersOutOfRangeAreNoAnswer) {
  ASSERT_TRUE(cache().store(kKey, shape_).is_ok());
  const std::string good = content();
  const auto with = [&](const std::string& part, const char* other) {
    std::string bad = good;
    bad.replace(good.find(part), part.size(), other);
    replace(bad);
    return cache().find(kKey);
  };
  for (const char* text : {"streams 0", "streams -1", "streams 99999999", "streams x"})
    EXPECT_EQ(with("streams 2", text), std::nullopt) << text;
  EXPECT_EQ(with("lone 2", "lone 0")->lone, Lone::kUnknown);
  EXPECT_EQ(with("lone 2", "lone 3"), std::nullopt);
}

TEST_F(TuneCacheTest, LongTextStaysOneLine) {
  ASSERT_TRUE(cache().store(kKey, {1, 1, "a\nend\nb", Lone::kUnknown, "c\nend\n"}).is_ok());
  EXPECT_EQ(cache().find(kKey), (TunedShape{1, 1, "a end b", Lone::kUnknown, "c end "}));
}

TEST_F(TuneCacheTest, AFolderThatCannotBeWrittenSaysSo) {
  std::ofstream(folder_.string()) << "a file";
  const Status stored = cache().store(kKey, shape_);
  EXPECT_EQ(stored.code(), Code::kFailedPrecondition);
  EXPECT_NE(stored.message().find(folder_.string()), std::string::npos);
  EXPECT_EQ(cache().find(kKey), std::nullopt);
}

TEST_F(TuneCacheTest, WithoutAFolderNothingIsKept) {
  const TuneCache none("");
  EXPECT_FALSE(none.enabled());
  EXPECT_TRUE(none.store(kKey, shape_).is_ok());
  EXPECT_EQ(none.find(kKey), std::nullopt);
}

TEST(HashBytes, EveryByteCounts) {
  std::string text(37, 'x');
  const std::uint64_t whole = hash_bytes(text.data(), text.size());
  EXPECT_EQ(hash_bytes(text.data(), text.size()), whole);
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::string other = text;
    other[i] = 'y';
    EXPECT_NE(hash_bytes(other.data(), other.size()), whole) << i;
  }
  EXPECT_NE(hash_bytes(text.data(), text.size() - 1), whole);
  EXPECT_NE(hash_bytes(text.data(), text.size(), 1), whole);
}

}  // namespace
}  // namespace fastserve
