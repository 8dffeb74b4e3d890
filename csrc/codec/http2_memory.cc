#include "codec/http2_memory.h"

#include <cstdlib>
#include <cstring>
#include <utility>

namespace fastserve {
namespace {

Http2Memory& memory_of(void* user_data) { return *static_cast<Http2Memory*>(user_data); }

}  // namespace

std::shared_ptr<Http2Memory> Http2Memory::of_this_thread() {
  thread_local const std::shared_ptr<Http2Memory> memory = std::make_shared<Http2Memory>();
  return memory;
}

Http2Memory::~Http2Memory() {
  for (List& list : waiting_) {
    while (list.first != nullptr) std::free(std::exchange(list.first, list.first->next));
  }
}

void* Http2Memory::take(std::size_t bytes) {
  const std::size_t size_class = bytes == 0 ? 0 : (bytes - 1) / kStep;
  if (size_class < kClasses) {
    List& list = waiting_[size_class];
    if (Head* head = list.first; head != nullptr) [[likely]] {
      list.first = head->next;
      --list.count;
      return head + 1;
    }
    bytes = (size_class + 1) * kStep;
  } else if (bytes > SIZE_MAX - sizeof(Head)) {
    return nullptr;
  }
  auto* const head = static_cast<Head*>(std::malloc(sizeof(Head) + bytes));
  if (head == nullptr) return nullptr;
  head->size_class = size_class < kClasses ? size_class : kClasses;
  return head + 1;
}

void* Http2Memory::take_zeroed(std::size_t count, std::size_t bytes) {
  std::size_t all = 0;
  if (__builtin_mul_overflow(count, bytes, &all)) return nullptr;
  void* const block = take(all);
  if (block != nullptr) std::memset(block, 0, all);
  return block;
}

void* Http2Memory::resize(void* block, std::size_t bytes) {
  if (block == nullptr) return take(bytes);
  Head* const head = head_of(block);
  if (head->size_class == kClasses) {  // stays malloc's, also when it becomes small
    if (bytes > SIZE_MAX - sizeof(Head)) return nullptr;
    auto* const moved = static_cast<Head*>(std::realloc(head, sizeof(Head) + bytes));
    return moved == nullptr ? nullptr : moved + 1;
  }
  const std::size_t held = (head->size_class + 1) * kStep;
  if (bytes <= held) return block;
  void* const moved = take(bytes);
  if (moved == nullptr) return nullptr;
  std::memcpy(moved, block, held);
  give_back(block);
  return moved;
}

void Http2Memory::give_back(void* block) {
  if (block == nullptr) return;
  Head* const head = head_of(block);
  if (head->size_class == kClasses || waiting_[head->size_class].count >= kKept) return std::free(head);
  List& list = waiting_[head->size_class];
  head->next = list.first;
  list.first = head;
  ++list.count;
}

nghttp2_mem Http2Memory::for_session() {
  return {
      this,
      [](std::size_t bytes, void* user_data) { return memory_of(user_data).take(bytes); },
      [](void* block, void* user_data) { memory_of(user_data).give_back(block); },
      [](std::size_t count, std::size_t bytes, void* user_data) {
        return memory_of(user_data).take_zeroed(count, bytes);
      },
      [](void* block, std::size_t bytes, void* user_data) {
        return memory_of(user_data).resize(block, bytes);
      },
  };
}

std::size_t Http2Memory::waiting_blocks() const {
  std::size_t count = 0;
  for (const List& list : waiting_) count += list.count;
  return count;
}

}  // namespace fastserve
