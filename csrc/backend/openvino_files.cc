#include "backend/openvino_files.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <vector>

namespace fastserve {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSavedModel = "TensorFlow SavedModel";
constexpr std::string_view kSavedModelFile = "saved_model.pb";

struct Format {
  std::string_view usual;  // the name in Triton's layout
  std::string_view ending;
  std::string_view name;
  bool directory;
};

constexpr std::array<Format, 6> kFormats = {{
    {"model.xml", ".xml", "IR", false},
    {"model.onnx", ".onnx", "ONNX", false},
    {"model.savedmodel", ".savedmodel", kSavedModel, true},
    {"model.tflite", ".tflite", "TensorFlow Lite", false},
    {"model.pdmodel", ".pdmodel", "Paddle", false},
    {"model.json", ".json", "Paddle", false},
}};

constexpr std::string_view kLookedFor =
    "model.xml (IR), model.onnx, model.savedmodel/ or saved_model.pb, model.tflite, model.pdmodel or "
    "model.json (Paddle)";

// At most this many names of a directory are put into an error message.
constexpr std::size_t kNamesShown = 10;

std::string list(const std::vector<std::string>& names) {
  if (names.empty()) return "nothing";
  std::string text;
  for (std::size_t i = 0; i < names.size() && i < kNamesShown; ++i) text += (i == 0 ? "" : ", ") + names[i];
  if (names.size() > kNamesShown) text += " and " + std::to_string(names.size() - kNamesShown) + " more";
  return text;
}

std::optional<ModelFile> recognise(const fs::path& path) {
  std::error_code ignored;
  const fs::file_status status = fs::status(path, ignored);
  const bool directory = fs::is_directory(status);
  // A pipe would keep the loader waiting for ever.
  if (!directory && !fs::is_regular_file(status)) return std::nullopt;
  for (const Format& format : kFormats) {
    if (path.extension() == format.ending && directory == format.directory)
      return ModelFile{path.string(), format.name};
  }
  return std::nullopt;
}

Result<ModelFile> only_one(const fs::path& directory, const std::vector<ModelFile>& found) {
  if (found.size() == 1) return found.front();
  std::vector<std::string> names;
  for (const ModelFile& file : found) {
    const bool is_directory_itself = fs::path(file.path) == directory;
    names.push_back(is_directory_itself ? std::string(kSavedModelFile)
                                        : fs::path(file.path).filename().string());
  }
  std::ranges::sort(names);
  return invalid_argument("\"" + directory.string() + "\" has more than one model: " + list(names) +
                          ". Keep one of them");
}

bool is_usual(const fs::path& path) {
  return std::ranges::any_of(kFormats, [&](const Format& format) { return path.filename() == format.usual; });
}

Result<ModelFile> search(const fs::path& directory) {
  std::vector<std::string> names;
  std::vector<ModelFile> usual, others;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    const fs::path& path = entry.path();
    std::error_code ignored;
    const bool odd = !entry.is_directory(ignored) && !entry.is_regular_file(ignored);
    names.push_back(path.filename().string() + (odd ? " (which is not a regular file)" : ""));
    if (path.filename() == kSavedModelFile) {
      usual.push_back({directory.string(), kSavedModel});  // the version directory is the SavedModel itself
    } else if (const auto file = recognise(path)) {
      (is_usual(path) ? usual : others).push_back(*file);
    }
  }
  std::ranges::sort(names);
  if (!usual.empty()) return only_one(directory, usual);
  if (!others.empty()) return only_one(directory, others);
  return not_found("no model in \"" + directory.string() + "\": looked for " + std::string(kLookedFor) +
                   "; there is " + list(names));
}

}  // namespace

Result<ModelFile> find_model_file(const std::string& path) {
  std::error_code error;
  const fs::path at(path);
  const fs::file_status status = fs::status(at, error);
  if (path.empty() || !fs::exists(status)) return not_found("no such file or directory: \"" + path + "\"");
  if (at.filename() == kSavedModelFile) return ModelFile{at.parent_path().string(), kSavedModel};
  if (const auto file = recognise(at)) return *file;
  if (!fs::is_directory(status)) {
    return invalid_argument("\"" + path + "\" is not a model file that OpenVINO reads; want " +
                            std::string(kLookedFor));
  }
  return search(at);
}

}  // namespace fastserve
