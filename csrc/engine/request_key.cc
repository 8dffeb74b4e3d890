#include "engine/request_key.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>
#include <variant>

namespace fastserve {
namespace {

__extension__ using Wide = unsigned __int128;

// Two words into one that depends on every bit of both: the halves of their product.
std::uint64_t fold(std::uint64_t a, std::uint64_t b) {
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64U);
}

std::uint64_t word_at(const std::byte* at) {
  std::uint64_t word = 0;
  std::memcpy(&word, at, sizeof(word));
  return word;
}

// Spreads well and is quick; what it lacks in strength the comparison makes good. Odd constants from the digits of pi.
class Fingerprint {
 public:
  explicit Fingerprint(std::uint64_t seed) : low_(seed ^ kLow), high_(std::rotl(seed, 32) ^ kHigh) {}

  void add(std::span<const std::byte> bytes) {
    const std::byte* at = bytes.data();
    std::size_t left = bytes.size();
    for (; left >= kStep; at += kStep, left -= kStep) add_step(at);
    std::byte rest[kStep]{};
    if (left != 0) std::memcpy(rest, at, left);
    add_step(rest);
    low_ += bytes.size();
  }
  std::uint64_t value() const { return fold(low_ ^ kHigh, high_ ^ kLow); }

 private:
  static constexpr std::size_t kStep = 32;
  static constexpr std::uint64_t kLow = 0x243f6a8885a308d3U;
  static constexpr std::uint64_t kHigh = 0x13198a2e03707345U;

  void add_step(const std::byte* at) {
    low_ = fold(word_at(at) ^ kLow, word_at(at + 8) ^ low_);
    high_ = fold(word_at(at + 16) ^ kHigh, word_at(at + 24) ^ high_);
  }

  std::uint64_t low_, high_;
};

class Head {
 public:
  explicit Head(std::vector<std::byte>& out) : out_(out) { out_.clear(); }
  void add(const void* from, std::size_t bytes) {
    const auto* begin = static_cast<const std::byte*>(from);
    out_.insert(out_.end(), begin, begin + bytes);
  }
  template <class T>
  void number(T value) {
    static_assert(std::is_arithmetic_v<T>);
    add(&value, sizeof(value));
  }
  void text(std::string_view value) {
    number(value.size());
    add(value.data(), value.size());
  }

 private:
  std::vector<std::byte>& out_;
};

// Those that only the front end reads.
bool for_encoder(std::string_view name) {
  return name == "binary_data_output" || name == "triton_enable_empty_final_response";
}

bool no_sequence(const Parameter& parameter) {
  if (parameter.name != "sequence_id") return false;
  if (const auto* number = std::get_if<std::int64_t>(&parameter.value)) return *number == 0;
  if (const auto* number = std::get_if<std::uint64_t>(&parameter.value)) return *number == 0;
  const auto* text = std::get_if<std::string_view>(&parameter.value);
  return text != nullptr && text->empty();
}

void add_parameters(const Request& request, Head& head) {
  for (const Parameter& parameter : request.parameters) {
    if (for_encoder(parameter.name) || no_sequence(parameter)) continue;
    head.text(parameter.name);
    head.number(parameter.value.index());
    std::visit(
        [&](const auto& value) {
          if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::string_view>) {
            head.text(value);
          } else {
            head.number(value);
          }
        },
        parameter.value);
  }
}

std::vector<std::byte>& thread_head() {
  thread_local std::vector<std::byte> head;
  return head;
}

template <class F>
void for_each_input(const Request& request, F f) {
  for (const int at : request.input_order) {
    if (at >= 0) f(request.inputs[static_cast<std::size_t>(at)]);
  }
}

}  // namespace

bool cacheable(const Request& request) {
  return !request.inputs_may_change &&
         std::ranges::none_of(request.parameters, [](const Parameter& parameter) {
           return parameter.name.starts_with("sequence_") && !no_sequence(parameter);
         });
}

RequestKey::RequestKey(const Request& request) : request_(request), head_(thread_head()) {
  Head head(thread_head());
  for (const int at : request.input_order) {
    head.number(at >= 0);
    if (at < 0) continue;
    const TensorView& input = request.inputs[static_cast<std::size_t>(at)];
    head.number(input.shape.rank());
    for (const std::int64_t dim : input.shape.dims()) head.number(dim);
    head.number(input.data.size());
    bytes_ += input.data.size();
  }
  head.number(request.output_order.size());
  for (const int output : request.output_order) head.number(output);
  add_parameters(request, head);
  bytes_ += head_.size();
}

std::uint64_t RequestKey::fingerprint(std::uint64_t seed) const {
  Fingerprint out(seed);
  out.add(head_);
  for_each_input(request_, [&](const TensorView& input) { out.add(input.data); });
  return out.value();
}

void RequestKey::copy_to(std::byte* to) const {
  std::memcpy(to, head_.data(), head_.size());
  to += head_.size();
  for_each_input(request_, [&](const TensorView& input) {
    if (!input.data.empty()) std::memcpy(to, input.data.data(), input.data.size());
    to += input.data.size();
  });
}

// Equal heads have equal lengths, because a head says how much of everything follows; so the data lie alike as well.
bool RequestKey::equals(std::span<const std::byte> copied) const {
  if (copied.size() != bytes_ || std::memcmp(copied.data(), head_.data(), head_.size()) != 0) return false;
  const std::byte* at = copied.data() + head_.size();
  bool same = true;
  for_each_input(request_, [&](const TensorView& input) {
    if (!same) return;
    same = input.data.empty() || std::memcmp(at, input.data.data(), input.data.size()) == 0;
    at += input.data.size();
  });
  return same;
}

}  // namespace fastserve
