// Requests whose tensors are in registered shared memory, through the engine.
#include "engine/shared_places.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "support/gate_backend.h"
#include "support/samples.h"
#include "support/shared_object.h"

namespace fastserve {
namespace {

constexpr std::size_t kObjectBytes = 8192;
constexpr std::uint64_t kMax = ~std::uint64_t{0};

class SharedPlaces : public ::testing::Test {
 protected:
  SharedPlaces() {
    engine_.backends().add(gate_);
    engine_.regions().allow({8, 1U << 20U, 100});
    EXPECT_TRUE(engine_.regions().add({"in", object_.key(), 0, 4096}).is_ok());
    EXPECT_TRUE(engine_.regions().add({"out", object_.key(), 4096, 4096}).is_ok());
  }
  ~SharedPlaces() override { request_.reset(); }

  void load(const LoadSpec& spec) {
    ASSERT_TRUE(engine_.load(spec).is_ok());
    gate_.open = false;  // from the warm-up on
  }
  // Input "x" of `rows` int32 rows at `offset` of "in"; its output "y" at 0 of "out" unless `output` is empty.
  void ask(std::int64_t rows, std::uint64_t offset, std::uint64_t bytes,
           SharedPlace output = {"out", 0, 4096}) {
    request_.reset();
    request_.completions = &completions_;
    request_.model_name = "echo";
    request_.inputs = {{"x", DType::kInt32, Shape{rows, 2}, {}}};
    request_.shared_inputs = {{0, {"in", offset, bytes}}};
    if (!output.region.empty()) request_.requested_outputs = {{.name = "y", .shared = output}};
  }
  Status answer() {
    const Result<Response*> response = submitter_.infer(request_);
    return response.is_ok() ? request_.response.status : response.status();
  }
  std::vector<std::int32_t> values(std::size_t offset, std::size_t count) {
    const std::int32_t* at = object_.as<std::int32_t>(offset);
    return {at, at + count};
  }

  GateBackend gate_;
  SharedObject object_{kObjectBytes};
  Engine engine_;
  Submitter submitter_{engine_};
  CompletionQueue completions_{CompletionQueue::Wake::kFutex};
  Request request_;
};

using Ints = std::vector<std::int32_t>;

TEST_F(SharedPlaces, InAndOutWithoutACopy) {
  load(identity_spec(512));
  std::ranges::fill(std::span(object_.as<std::int32_t>(), 1024), 5);
  ask(512, 0, 4096);
  ASSERT_TRUE(answer().is_ok()) << request_.response.status.message();
  EXPECT_EQ(values(4096, 1024), Ints(1024, 5));
  EXPECT_TRUE(request_.inputs_may_change);
  EXPECT_EQ(request_.regions.size(), 2U);
  EXPECT_EQ(engine_.statistics("echo", 1).value().copied_bytes, 0U);
  engine_.regions().remove_all();
  EXPECT_EQ(engine_.regions().totals().regions, 2U) << "the answer may still be looked at";
  request_.reset();
  EXPECT_EQ(engine_.regions().totals().regions, 0U);
}

TEST_F(SharedPlaces, InOnlyAndAtAnyOffset) {
  load(identity_spec());
  object_.as<std::int32_t>(4)[0] = 3;
  object_.as<std::int32_t>(4)[1] = 4;
  ask(1, 4, 8, {});
  ASSERT_TRUE(answer().is_ok());
  const auto data = request_.response.outputs[0].data;
  EXPECT_EQ(std::memcmp(data.data(), object_.as<char>(4), 8), 0);
  EXPECT_EQ(data.size(), 8U);
}

TEST_F(SharedPlaces, PlacesThatAreNotThere) {
  load(identity_spec());
  struct Case {
    SharedPlace in, out;
    Code code;
    const char* words;
  };
  const SharedPlace fine_in{"in", 0, 8};
  const SharedPlace fine_out{"out", 0, 8};
  const Case cases[] = {
      {{"no", 0, 8},
       fine_out,
       Code::kNotFound,
       "Unable to find shared memory region: 'no'. inputs[\"x\"].parameters[\"shared_memory_region\"]"},
      {fine_in,
       {"no", 0, 8},
       Code::kNotFound,
       "Unable to find shared memory region: 'no'. outputs[\"y\"].parameters[\"shared_memory_region\"]"},
      {{"in", 4096, 8}, fine_out, Code::kInvalidArgument, "Invalid offset for shared memory region: 'in'"},
      {{"in", kMax, 8}, fine_out, Code::kInvalidArgument, "Invalid offset for shared memory region: 'in'"},
      {{"in", 4089, 8},
       fine_out,
       Code::kInvalidArgument,
       "Invalid offset + byte size for shared memory region: 'in'"},
      {{"in", 8, kMax}, fine_out, Code::kInvalidArgument, "Integer overflow detected: "},
      {fine_in, {"out", 4096, 0}, Code::kInvalidArgument, "Invalid offset for shared memory region: 'out'"},
      {fine_in,
       {"out", 4090, 8},
       Code::kInvalidArgument,
       "Invalid offset + byte size for shared memory region: 'out'"},
      {{"in", 0, 7}, fine_out, Code::kInvalidArgument, "input byte size mismatch for input 'x'"},
      {{"in", 0, 9}, fine_out, Code::kInvalidArgument, "input byte size mismatch for input 'x'"},
      {{"in", 0, 0}, fine_out, Code::kInvalidArgument, "input byte size mismatch for input 'x'"},
      {fine_in,
       {"out", 0, 7},
       Code::kInvalidArgument,
       "shared memory size specified with the request for output 'y' (7 bytes) should be at least 8 bytes"},
      {{"in", 4088, 8}, {"out", 4088, 8}, Code::kOk, ""},
  };
  for (const Case& c : cases) {
    ask(1, c.in.offset, c.in.bytes, c.out);
    request_.shared_inputs[0].place = c.in;
    const Status status = answer();
    EXPECT_EQ(status.code(), c.code) << c.words << " / " << status.message();
    EXPECT_NE(status.message().find(c.words), std::string::npos) << status.message();
  }
  request_.reset();
  engine_.regions().remove_all();
  EXPECT_EQ(engine_.regions().totals().regions, 0U) << "no request keeps what it was refused for";
}

TEST_F(SharedPlaces, AreUnimplementedWhileTheyAreOff) {
  Engine engine;
  ASSERT_TRUE(engine.load(identity_spec()).is_ok());
  Submitter submitter(engine);
  ask(1, 0, 8);
  const Status status = submitter.submit(request_);
  EXPECT_EQ(status.code(), Code::kUnimplemented);
  EXPECT_EQ(
      status.message(),
      "inputs[\"x\"].parameters[\"shared_memory_region\"]: shared memory is not enabled on this server");
}

TEST_F(SharedPlaces, UnregisteredDuringARequestItStaysUntilTheAnswer) {
  LoadSpec spec = identity_spec();
  spec.backend = "gate";
  load(spec);
  object_.as<std::int32_t>()[0] = 1;
  ask(1, 0, 8);
  ASSERT_TRUE(submitter_.submit(request_).is_ok());
  submitter_.flush();
  Batch& running = gate_.gate.next();
  engine_.regions().remove("in");
  engine_.regions().remove("out");
  EXPECT_TRUE(engine_.regions().list().empty());
  SharedObject other(4096);
  EXPECT_TRUE(engine_.regions().add({"in", other.key(), 0, 64}).is_ok()) << "the name is free";
  EXPECT_EQ(engine_.regions().totals().regions, 3U);
  object_.as<std::int32_t>()[1] = 2;  // the client may still write
  echo(running);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_TRUE(request_.response.status.is_ok());
  EXPECT_EQ(values(4096, 2), (Ints{1, 2}));
  request_.reset();
  EXPECT_EQ(engine_.regions().totals().regions, 1U);
}

TEST_F(SharedPlaces, TruncatedWhileItWaits) {
  ASSERT_TRUE(install_sigbus_guard().is_ok());
  LoadSpec spec = identity_spec();
  spec.backend = "gate";
  load(spec);
  ask(1, 0, 8);
  ASSERT_TRUE(submitter_.submit(request_).is_ok());
  submitter_.flush();
  Batch& running = gate_.gate.next();
  object_.resize(0);
  echo(running);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_EQ(request_.response.status.code(), Code::kInvalidArgument);
  EXPECT_NE(request_.response.status.message().find("was truncated by its owner"), std::string::npos);
  const VersionStatistics counted = engine_.statistics("echo", 1).value();
  EXPECT_EQ(counted.requests_rejected.at("client_memory"), 1U);
  EXPECT_EQ(counted.fail.count - counted.other.count, 0U) << "no backend's fault";
  // The next one is refused at once, and others are served.
  ask(1, 0, 8);
  EXPECT_EQ(submitter_.submit(request_).code(), Code::kInvalidArgument);
  RowRequest plain(&completions_, 1, 4);
  ASSERT_TRUE(submitter_.submit(plain.request).is_ok());
  submitter_.flush();
  echo(gate_.gate.next());
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  EXPECT_TRUE(plain.echoed());
  plain.request.reset();
}

class SharedText : public SharedPlaces {
 protected:
  SharedText() {
    LoadSpec spec = identity_spec(4);
    spec.inputs = {{"x", DType::kBytes, Shape{-1, 1}, false}};
    spec.outputs = {{"y", DType::kBytes, Shape{-1, 1}, false}};
    spec.backend = "gate";
    load(spec);
  }
  void put(const std::vector<std::string>& elements) {
    const std::vector<std::byte> text = serialized(elements);
    std::ranges::copy(text, object_.memory().begin());
    bytes_ = text.size();
  }
  void ask_text(std::int64_t elements) {
    ask(1, 0, bytes_);
    request_.inputs[0].dtype = DType::kBytes;
    request_.inputs[0].shape = Shape{elements, 1};
  }
  std::size_t bytes_ = 0;
};

TEST_F(SharedText, IsCopiedBeforeItIsChecked) {
  put({"one", "two"});
  ask_text(2);
  ASSERT_TRUE(submitter_.submit(request_).is_ok());
  submitter_.flush();
  Batch& running = gate_.gate.next();
  object_.as<std::uint32_t>()[0] = 0xFFFFFFFF;  // a length of 4 GiB, behind the check's back
  EXPECT_FALSE(request_.inputs_may_change);
  echo(running);
  ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  ASSERT_TRUE(request_.response.status.is_ok()) << request_.response.status.message();
  const std::vector<std::byte> want = serialized({"one", "two"});
  EXPECT_TRUE(std::ranges::equal(object_.memory().subspan(4096, want.size()), want));
  // Asked again, what stands there now is refused.
  ask_text(2);
  EXPECT_EQ(submitter_.submit(request_).code(), Code::kInvalidArgument);
}

TEST_F(SharedText, HasALimit) {
  for (const std::size_t total : {99U, 100U, 101U}) {
    put({std::string(total - 4, 'w')});
    ask_text(1);
    const Status status = submitter_.submit(request_);
    EXPECT_EQ(status.is_ok(), total <= 100) << status.message();
    if (!status.is_ok()) {
      EXPECT_EQ(status.code(), Code::kResourceExhausted);
      EXPECT_NE(status.message().find("got 101, want BYTES inputs of 100 bytes or fewer together"),
                std::string::npos);
      continue;
    }
    submitter_.flush();
    echo(gate_.gate.next());
    ASSERT_EQ(wait_for(completions_, 1).size(), 1U);
  }
}

TEST_F(SharedText, TruncatedWhileItIsCopied) {
  ASSERT_TRUE(install_sigbus_guard().is_ok());
  put({"one"});
  object_.resize(0);
  ask_text(1);
  const Status status = submitter_.submit(request_);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("was truncated by its owner"), std::string::npos) << status.message();
}

TEST(SharedPlacesAndCache, AnswersToMemoryThatMayChangeAreNotKept) {
  EngineOptions options;
  options.response_cache_bytes = 1U << 20U;
  Engine engine(options);
  LoadSpec spec = identity_spec();
  spec.response_cache = true;
  ASSERT_TRUE(engine.load(spec).is_ok());
  engine.regions().allow({});
  SharedObject object(4096);
  ASSERT_TRUE(engine.regions().add({"r", object.key(), 0, 4096}).is_ok());
  CompletionQueue completions(CompletionQueue::Wake::kFutex);
  Submitter submitter(engine);
  Request request;
  const auto ask = [&](std::int32_t value) {
    request.reset();
    request.completions = &completions;
    request.model_name = "echo";
    object.as<std::int32_t>()[0] = value;
    object.as<std::int32_t>()[1] = value;
    request.inputs = {{"x", DType::kInt32, Shape{1, 2}, {}}};
    request.shared_inputs = {{0, {"r", 0, 8}}};
    request.requested_outputs = {{.name = "y", .shared = {"r", 64, 8}}};
    ASSERT_TRUE(submitter.infer(request).is_ok());
    EXPECT_TRUE(request.response.status.is_ok());
    EXPECT_EQ(object.as<std::int32_t>(64)[1], value);
  };
  for (const std::int32_t value : {1, 2, 1}) ask(value);
  EXPECT_EQ(engine.response_cache().entries, 0U);
  // One that came in its message: kept, and the next one is answered from it, into shared memory too.
  RowRequest plain(&completions, 1, 3);
  ASSERT_TRUE(submitter.infer(plain.request).is_ok());
  EXPECT_EQ(engine.response_cache().entries, 1U);
  plain.request.reset();
  RowRequest again(&completions, 1, 3);
  again.request.completions = &completions;
  again.request.requested_outputs = {{.name = "y", .shared = {"r", 128, 8}}};
  ASSERT_TRUE(submitter.infer(again.request).is_ok());
  EXPECT_EQ(engine.statistics("echo", 1).value().cache_hit.count, 1U);
  EXPECT_EQ(object.as<std::int32_t>(128)[0], 93);
  request.reset();
  again.request.reset();
}

// An answer that is larger than its place by one byte: the client's fault, whoever sees the answer on its way, and whether or not it was
// computed.
TEST(SharedPlacesAndStatistics, WhoGaveTooLittleRoomIsToBlame) {
  struct Case {
    bool cached;
    std::int64_t rows, max_request_rows;
  };
  for (const auto& [cached, rows, max_request_rows] :
       {Case{false, 1, 0}, Case{true, 1, 0}, Case{false, 10, 64}}) {
    EngineOptions options;
    options.response_cache_bytes = 1U << 20U;
    Engine engine(options);
    LoadSpec spec = identity_spec(4);
    spec.response_cache = cached;
    if (max_request_rows != 0) spec.max_request_rows = max_request_rows;
    ASSERT_TRUE(engine.load(spec).is_ok());
    CompletionQueue completions(CompletionQueue::Wake::kFutex);
    Submitter submitter(engine);
    std::vector<std::byte> room(static_cast<std::size_t>(rows) * 8);
    const auto ask = [&](std::size_t room_bytes) {
      RowRequest one(&completions, rows, 3);
      one.request.requested_outputs = {{.name = "y", .destination = std::span(room).first(room_bytes)}};
      EXPECT_TRUE(submitter.infer(one.request).is_ok());
      const Code code = one.request.response.status.code();
      one.request.reset();
      return code;
    };
    EXPECT_EQ(ask(room.size() - 1), Code::kInvalidArgument);
    EXPECT_EQ(ask(room.size()), Code::kOk);
    EXPECT_EQ(ask(room.size() - 1), Code::kInvalidArgument) << "from the cache, where there is one";
    const VersionStatistics counted = engine.statistics("echo", 1).value();
    EXPECT_EQ(counted.cache_hit.count, cached ? 1U : 0U);
    EXPECT_EQ(counted.requests_rejected.at("client_memory"), 2U) << cached << rows;
    EXPECT_EQ(counted.success.count, 1U) << cached << rows;
    EXPECT_EQ(counted.fail.count, 2U);
    EXPECT_EQ(counted.fail.count - counted.other.count, 0U);
  }
}

TEST(SharedPlacesAndParts, ARequestLargerThanABatch) {
  Engine engine;
  LoadSpec spec = identity_spec(4);
  spec.max_request_rows = 64;
  ASSERT_TRUE(engine.load(spec).is_ok());
  engine.regions().allow({});
  SharedObject object(4096);
  ASSERT_TRUE(engine.regions().add({"r", object.key(), 0, 4096}).is_ok());
  for (std::int32_t i = 0; i < 20; ++i) object.as<std::int32_t>()[i] = i;
  CompletionQueue completions(CompletionQueue::Wake::kFutex);
  Submitter submitter(engine);
  Request request;
  request.completions = &completions;
  request.model_name = "echo";
  request.inputs = {{"x", DType::kInt32, Shape{10, 2}, {}}};
  request.shared_inputs = {{0, {"r", 0, 80}}};
  request.requested_outputs = {{.name = "y", .shared = {"r", 2048, 80}}};
  ASSERT_TRUE(submitter.infer(request).is_ok());
  ASSERT_TRUE(request.response.status.is_ok()) << request.response.status.message();
  EXPECT_EQ(std::memcmp(object.as<char>(2048), object.as<char>(), 80), 0);
  request.reset();
}

}  // namespace
}  // namespace fastserve
