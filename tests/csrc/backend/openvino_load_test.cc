// Loading with the OpenVINO plug-in: which file, which formats, the signature against the configuration, parameters.
#include <fstream>

#include "backend/batch_run.h"
#include "backend/openvino_models.h"

namespace fastserve::test {
namespace {

namespace fs = std::filesystem;

class OpenVinoLoad : public OpenVinoTest {
 protected:
  void write(const std::string& name, const std::string& content) {
    std::ofstream(directory_ / name) << content;
  }

  Signature signature_of(const LoadSpec& spec) {
    auto loaded = load(spec);
    if (!loaded.is_ok()) {
      ADD_FAILURE() << loaded.status().message();
      return {};
    }
    return (*loaded)->signature();
  }
};

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

#define EXPECT_HAS(text, part) EXPECT_TRUE(has(text, part)) << text

// ---- files

TEST_F(OpenVinoLoad, EmptyDirectorySaysWhatWasLookedForAndWhatIsThere) {
  write("labels.txt", "cat");
  const std::string message = refusal(spec(), Code::kNotFound);
  EXPECT_HAS(message, "model.xml");
  EXPECT_HAS(message, "model.savedmodel/");
  EXPECT_HAS(message, "there is labels.txt");
}

TEST_F(OpenVinoLoad, MissingPath) {
  LoadSpec with = spec();
  with.path += "/2";
  EXPECT_HAS(refusal(with, Code::kNotFound), with.path);
}

TEST_F(OpenVinoLoad, TwoModelsAreOneTooMany) {
  save(linear_model());
  write("model.onnx", "");
  EXPECT_HAS(refusal(spec(), Code::kInvalidArgument), "more than one model: model.onnx, model.xml");
  fs::remove(directory_ / "model.onnx");
  write("saved_model.pb", "");
  EXPECT_HAS(refusal(spec(), Code::kInvalidArgument), "more than one model: model.xml, saved_model.pb");
}

TEST_F(OpenVinoLoad, AnotherNameWillDoWhenItIsTheOnlyOne) {
  save(linear_model(), "digits");
  EXPECT_TRUE(load(spec()).is_ok());
  save(linear_model(), "letters");
  EXPECT_HAS(refusal(spec(), Code::kInvalidArgument), "digits.xml, letters.xml");
  save(linear_model());  // the usual name wins
  EXPECT_TRUE(load(spec()).is_ok());
}

TEST_F(OpenVinoLoad, PathOfTheFileItself) {
  save(linear_model(), "a");
  save(linear_model(), "b");
  LoadSpec with = spec();
  with.path = (directory_ / "b.xml").string();
  EXPECT_TRUE(load(with).is_ok());
  with.path = (directory_ / "b.bin").string();
  EXPECT_HAS(refusal(with, Code::kInvalidArgument), "b.bin");
}

TEST_F(OpenVinoLoad, CorruptFilesAreTheAuthorsFault) {
  for (const char* name : {"model.xml", "model.onnx", "model.tflite", "model.pdmodel", "saved_model.pb"}) {
    for (const char* content :
         {"", "this is no model", "<?xml version=\"1.0\"?><net name=\"x\" version=\"11\"><layers>"}) {
      SCOPED_TRACE(std::string(name) + ": " + content);
      write(name, content);
      const std::string message = refusal(spec(), Code::kInvalidArgument);
      EXPECT_TRUE(has(message, "cannot read") || has(message, "the model has no")) << message;
      fs::remove(directory_ / name);
    }
  }
}

TEST_F(OpenVinoLoad, WeightsMissingOrCutOff) {
  save(linear_model());
  fs::resize_file(directory_ / "model.bin", 8);
  EXPECT_HAS(refusal(spec(), Code::kInvalidArgument), "cannot read");
  fs::remove(directory_ / "model.bin");
  EXPECT_HAS(refusal(spec(), Code::kInvalidArgument), "cannot read");
}

// A file that is overwritten while it is served must not end the process (mapped, its pages would be gone).
TEST_F(OpenVinoLoad, FilesMayGoAfterLoading) {
  save(linear_model());
  auto loaded = load(spec());
  ASSERT_TRUE(loaded.is_ok());
  fs::resize_file(directory_ / "model.bin", 0);
  fs::resize_file(directory_ / "model.xml", 0);
  auto instance = (*loaded)->make_instance(0);
  ASSERT_TRUE(instance.is_ok());
  BatchRun run((*loaded)->signature());
  const std::vector<float> x = {1, 2, 3, 4};
  run.add(1, {{"x", DType::kFp32, {1, 4}, bytes_of(x)}});
  ASSERT_TRUE(run.run(**instance, 1).is_ok());
  EXPECT_EQ(run.output<float>(0, 0), linear_reference(x));
}

// ---- formats: the same model, written by tests/fixtures/make_models.py

struct FormatCase {
  const char* folder;
  const char* format;
};

class OpenVinoFormats : public ::testing::TestWithParam<FormatCase> {};

TEST_P(OpenVinoFormats, LoadsAndAnswers) {
  LoadSpec spec;
  spec.path = std::string(FASTSERVE_SOURCE_DIR) + "/tests/fixtures/models/" + GetParam().folder + "/1";
  auto loaded = openvino_plugin().load(spec, {});
  ASSERT_TRUE(loaded.is_ok()) << loaded.status().message();
  EXPECT_EQ((*loaded)->properties().at("format"), GetParam().format);
  const Signature& signature = (*loaded)->signature();
  ASSERT_EQ(signature.inputs.size(), 1U);
  EXPECT_EQ(signature.inputs[0].name, "x");
  EXPECT_EQ(signature.inputs[0].shape, (Shape{-1, 4}));
  ASSERT_EQ(signature.outputs.size(), 1U);
  EXPECT_EQ(signature.outputs[0].name, "y");
  EXPECT_EQ(signature.outputs[0].shape, (Shape{-1, 3}));
  EXPECT_EQ(signature.max_batch_rows, 64);
  auto instance = (*loaded)->make_instance(0);
  ASSERT_TRUE(instance.is_ok());
  BatchRun run(signature);
  const std::vector<float> x = {0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 1, 0};
  run.add(3, {{"x", DType::kFp32, {3, 4}, bytes_of(x)}});
  const Status status = run.run(**instance, bucket_for(**loaded, 3));
  ASSERT_TRUE(status.is_ok()) << status.message();
  // relu(x @ W + B) of make_models.py, by numpy; exact even in bf16.
  EXPECT_EQ(run.output<float>(0, 0), (std::vector<float>{2, 5, 13, 10, 13, 29, 3, 0, 1}));
}

INSTANTIATE_TEST_SUITE_P(All, OpenVinoFormats,
                         ::testing::Values(FormatCase{"ir", "IR"}, FormatCase{"onnx", "ONNX"},
                                           FormatCase{"savedmodel", "TensorFlow SavedModel"},
                                           FormatCase{"tflite", "TensorFlow Lite"},
                                           FormatCase{"paddle", "Paddle"}),
                         [](const auto& each) { return std::string(each.param.folder); });

// ---- signature and batching

TEST_F(OpenVinoLoad, BatchesOnlyWithAFreeDimensionInFront) {
  save(linear_model());
  EXPECT_EQ(signature_of(spec()).max_batch_rows, 64);
  save(linear_model(1));
  EXPECT_EQ(signature_of(spec()).max_batch_rows, 0);
  EXPECT_EQ(signature_of(spec()).inputs[0].shape, (Shape{1, 4}));
  save(linear_model(5));
  EXPECT_EQ(signature_of(spec()).max_batch_rows, 0);
}

TEST_F(OpenVinoLoad, DoesNotBatchWhenTheOutputDoesNotFollow) {
  const auto x = input("x", {-1, 4});
  const auto mean =
      std::make_shared<op::ReduceMean>(x, op::Constant::create(ov::element::i64, {1}, {0}), true);
  save(std::make_shared<ov::Model>(ov::ResultVector{output("y", mean)}, ov::ParameterVector{x}));
  const Signature signature = signature_of(spec());
  EXPECT_EQ(signature.max_batch_rows, 0);
  EXPECT_EQ(signature.inputs[0].shape, (Shape{-1, 4}));
  LoadSpec with = spec();
  with.max_batch_rows = 8;
  const std::string message = refusal(with, Code::kInvalidArgument);
  EXPECT_HAS(message, "config.max_batch_size: got 8");
  EXPECT_HAS(message, "[1,4]");
}

TEST_F(OpenVinoLoad, AFixedOneInFrontBecomesFreeOnDemand) {
  save(linear_model(1));
  LoadSpec with = spec();
  with.max_batch_rows = 8;
  const Signature signature = signature_of(with);
  EXPECT_EQ(signature.max_batch_rows, 8);
  EXPECT_EQ(signature.inputs[0].shape, (Shape{-1, 4}));
  EXPECT_EQ(signature.outputs[0].shape, (Shape{-1, 3}));
  save(linear_model(5));
  EXPECT_HAS(refusal(with, Code::kInvalidArgument),
             "config.max_batch_size: got 8, but input \"x\" has shape [5,4]");
}

TEST_F(OpenVinoLoad, OffByConfiguration) {
  save(linear_model());
  LoadSpec with = spec();
  with.max_batch_rows = 0;
  const Signature signature = signature_of(with);
  EXPECT_EQ(signature.max_batch_rows, 0);
  EXPECT_EQ(signature.inputs[0].shape, (Shape{-1, 4}));
}

TEST_F(OpenVinoLoad, NamelessPortsGetStableNames) {
  const auto make = [] {
    const auto x = input("", {-1, 4});
    return std::make_shared<ov::Model>(ov::ResultVector{output("", std::make_shared<op::Relu>(x))},
                                       ov::ParameterVector{x});
  };
  for (int i = 0; i < 2; ++i) {
    save(make());
    const Signature signature = signature_of(spec());
    EXPECT_EQ(signature.inputs[0].name, "input_0");
    EXPECT_EQ(signature.outputs[0].name, "output_0");
  }
}

TEST_F(OpenVinoLoad, ConfiguredNamesMayBeAnyOfThePorts) {
  const auto model = linear_model();
  model->input(0).set_names({"x", "features"});
  save(model);
  LoadSpec with = spec();
  with.inputs = {{"features", DType::kFp32, {-1, 4}, false}};
  EXPECT_EQ(signature_of(with).inputs[0].name, "features");
}

TEST_F(OpenVinoLoad, ConfigurationIsCheckedAgainstTheModel) {
  save(linear_model());
  const TensorSpec x{"x", DType::kFp32, {-1, 4}, false}, y{"y", DType::kFp32, {-1, 3}, false};
  const auto with = [&](std::vector<TensorSpec> inputs, std::vector<TensorSpec> outputs) {
    LoadSpec made = spec();
    made.max_batch_rows = 16;
    made.inputs = std::move(inputs);
    made.outputs = std::move(outputs);
    return made;
  };
  EXPECT_EQ(signature_of(with({x}, {y})).max_batch_rows, 16);
  EXPECT_EQ(refusal(with({{"x", DType::kFp32, {-1, 5}, false}}, {}), Code::kInvalidArgument),
            "config.input[\"x\"].dims[0]: got 5, model has 4");
  EXPECT_EQ(refusal(with({{"x", DType::kInt64, {-1, 4}, false}}, {}), Code::kInvalidArgument),
            "config.input[\"x\"].data_type: got INT64, model has FP32");
  EXPECT_HAS(refusal(with({{"x", DType::kFp32, {-1, 2, 2}, false}}, {}), Code::kInvalidArgument),
             "config.input[\"x\"].dims: got [-1,2,2], model has [?,4]");
  EXPECT_EQ(refusal(with({{"z", DType::kFp32, {-1, 4}, false}}, {}), Code::kInvalidArgument),
            "config.input[\"z\"]: the model has no such input, it has \"x\"");
  EXPECT_HAS(refusal(with({x, x}, {}), Code::kInvalidArgument), "given twice");
  EXPECT_EQ(refusal(with({x}, {{"y", DType::kFp32, {-1, 4}, false}}), Code::kInvalidArgument),
            "config.output[\"y\"].dims[0]: got 4, model has 3");
  EXPECT_HAS(refusal(with({x}, {{"q", DType::kFp32, {-1, 3}, false}}), Code::kInvalidArgument),
             "config.output[\"q\"]: the model has no such output");
}

TEST_F(OpenVinoLoad, EveryInputMustBeConfiguredButNotEveryOutput) {
  const auto a = input("a", {-1, 2});
  const auto b = input("b", {-1, 2});
  const auto sum = std::make_shared<op::Add>(a, b);
  const auto difference = std::make_shared<op::Subtract>(a, b);
  save(std::make_shared<ov::Model>(ov::ResultVector{output("sum", sum), output("difference", difference)},
                                   ov::ParameterVector{a, b}));
  LoadSpec with = spec();
  with.outputs = {{"difference", DType::kFp32, {-1, 2}, false}};
  EXPECT_EQ(signature_of(with).outputs.size(), 1U);
  auto loaded = load(with);
  auto instance = (*loaded)->make_instance(0);
  BatchRun run((*loaded)->signature());
  const std::vector<float> first = {5, 7}, second = {1, 2};
  run.add(1, {{"a", DType::kFp32, {1, 2}, bytes_of(first)}, {"b", DType::kFp32, {1, 2}, bytes_of(second)}});
  ASSERT_TRUE(run.run(**instance, 1).is_ok());
  EXPECT_EQ(run.output<float>(0, 0), (std::vector<float>{4, 5}));
  with.inputs = {{"a", DType::kFp32, {-1, 2}, false}};
  EXPECT_HAS(refusal(with, Code::kInvalidArgument), "input \"b\" of the model is missing");
}

TEST_F(OpenVinoLoad, ConfigurationNarrowsFreeDimensions) {
  const auto x = input("x", {-1, -1});
  save(std::make_shared<ov::Model>(ov::ResultVector{output("y", std::make_shared<op::Relu>(x))},
                                   ov::ParameterVector{x}));
  LoadSpec with = spec();
  with.max_batch_rows = 4;
  with.inputs = {{"x", DType::kFp32, {-1, 10}, false}};
  const Signature signature = signature_of(with);
  EXPECT_EQ(signature.inputs[0].shape, (Shape{-1, 10}));
  EXPECT_EQ(signature.outputs[0].shape, (Shape{-1, 10})) << "follows from the input";
}

TEST_F(OpenVinoLoad, UnsupportedElementTypesNameThePort) {
  const auto x = input("letters", {-1}, ov::element::string);
  save(std::make_shared<ov::Model>(ov::ResultVector{output("y", x)}, ov::ParameterVector{x}));
  const std::string message = refusal(spec(), Code::kUnimplemented);
  EXPECT_HAS(message, "letters");
  EXPECT_HAS(message, "string");
}

TEST_F(OpenVinoLoad, AnyRankIsRefusedUnlessConfigured) {
  const auto x = input("x", ov::PartialShape::dynamic());
  save(std::make_shared<ov::Model>(ov::ResultVector{output("y", std::make_shared<op::Relu>(x))},
                                   ov::ParameterVector{x}));
  EXPECT_HAS(refusal(spec(), Code::kUnimplemented), "input \"x\"");
  LoadSpec with = spec();
  with.max_batch_rows = 4;
  with.inputs = {{"x", DType::kFp32, {-1, 2}, false}};
  EXPECT_EQ(signature_of(with).outputs[0].shape, (Shape{-1, 2}));
}

// ---- parameters and properties

TEST_F(OpenVinoLoad, ParametersAreCheckedByName) {
  save(linear_model());
  const auto message = [&](const std::string& name, const std::string& value) {
    LoadSpec with = spec();
    with.parameters[name] = value;
    return refusal(with, Code::kInvalidArgument);
  };
  EXPECT_HAS(message("NO_SUCH_PROPERTY", "1"), "parameters[\"NO_SUCH_PROPERTY\"]");
  EXPECT_HAS(message("FULL_DEVICE_NAME", "x"), "parameters[\"FULL_DEVICE_NAME\"]");  // can be read, not set
  EXPECT_HAS(message("nonsense", "1"), "parameters[\"nonsense\"]");
  EXPECT_HAS(message("prepared", "maybe"), "parameters[\"prepared\"]: got \"maybe\"");
  EXPECT_HAS(message("depth", "0"), "parameters[\"depth\"]: got \"0\"");
  EXPECT_HAS(message("depth", "2x"), "parameters[\"depth\"]: got \"2x\"");
  EXPECT_HAS(message("DEVICE", "TOASTER"), "parameters[\"DEVICE\"]: got \"TOASTER\"");
  EXPECT_HAS(message("NUM_STREAMS", "many"), "parameters[\"NUM_STREAMS\"]: got \"many\"");
  EXPECT_HAS(message("INFERENCE_NUM_THREADS", "-3"), "parameters[\"INFERENCE_NUM_THREADS\"]: got \"-3\"");
  EXPECT_HAS(message("INFERENCE_PRECISION_HINT", "f7"),
             "parameters[\"INFERENCE_PRECISION_HINT\"]: got \"f7\"");
}

TEST_F(OpenVinoLoad, PropertiesShowWhatRuns) {
  save(linear_model());
  LoadSpec with = spec();
  with.parameters["NUM_STREAMS"] = "2";
  with.parameters["INFERENCE_NUM_THREADS"] = "2";
  auto loaded = load(with);
  ASSERT_TRUE(loaded.is_ok()) << loaded.status().message();
  const auto properties = (*loaded)->properties();
  EXPECT_EQ(properties.at("device"), "CPU");
  EXPECT_EQ(properties.at("format"), "IR");
  EXPECT_EQ(properties.at("precision"), "f32");
  EXPECT_EQ(properties.at("streams"), "2");
  EXPECT_EQ(properties.at("threads"), "2");
  EXPECT_EQ((*loaded)->instance_count(), 2) << "an instance per stream when nobody says";
  EXPECT_EQ((*loaded)->platform(), "openvino");

  // Left to OpenVINO the precision may be bf16 or f32, but it is said.
  with.parameters.clear();
  const std::string precision = (*load(with))->properties().at("precision");
  EXPECT_TRUE(precision == "f32" || precision == "bf16" || precision == "f16") << precision;
}

TEST_F(OpenVinoLoad, CacheDirectoryIsUsed) {
  save(linear_model());
  LoadSpec with = spec();
  with.parameters["CACHE_DIR"] = (directory_ / "cache").string();
  with.parameters["prepared"] = "dynamic";
  ASSERT_TRUE(load(with).is_ok());
  EXPECT_FALSE(fs::is_empty(directory_ / "cache"));
  ASSERT_TRUE(load(with).is_ok());
}

TEST_F(OpenVinoLoad, ProgressRisesAndNamesTheSteps) {
  save(linear_model());
  std::vector<double> fractions;
  std::vector<std::string> words;
  const auto loaded = openvino_plugin().load(spec(), [&](double fraction, std::string_view what) {
    fractions.push_back(fraction);
    words.emplace_back(what);
  });
  ASSERT_TRUE(loaded.is_ok());
  EXPECT_TRUE(std::ranges::is_sorted(fractions));
  EXPECT_EQ(words.front(), "reading");
  EXPECT_NE(std::ranges::find(words, "compiling 3 of 7"), words.end());
  EXPECT_LE(fractions.back(), 1.0);
}

}  // namespace
}  // namespace fastserve::test
