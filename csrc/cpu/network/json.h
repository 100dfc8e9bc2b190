// A small strict JSON reader (RFC 8259) for headers that strangers wrote: no exceptions, bounded depth, duplicate keys
// refused. Whole numbers are exact in 64 bits; any other number is recognised and nothing more, since the formats read
// here hold none. Strings keep their bytes, escapes become UTF-8, and a zero character is refused: names end at it.
//
// A document is one array of nodes in the order of the text. A node knows where its subtree ends, so the members of an
// array or object are walked without further memory; keys are string nodes before their values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sparsecore::network {

enum class JsonKind : uint8_t { kNull, kBool, kInteger, kNumber, kString, kArray, kObject };

class JsonDocument;

// One value of a document, or nothing (where a key is missing). Valid as long as its document.
class Json {
 public:
  Json() = default;
  explicit operator bool() const { return document_ != nullptr; }

  bool is(JsonKind kind) const;
  int64_t integer() const;          // of an integer
  std::string_view string() const;  // of a string; a zero follows its last byte
  uint32_t size() const;            // elements of an array, members of an object
  Json find(std::string_view key) const;

  // Elements of an array; keys and values in turn of an object.
  class Iterator {
   public:
    Iterator(const JsonDocument* document, uint32_t at) : document_(document), at_(at) {}
    Json operator*() const { return Json(document_, at_); }
    Iterator& operator++();
    bool operator!=(const Iterator& other) const { return at_ != other.at_; }

   private:
    const JsonDocument* document_;
    uint32_t at_;
  };
  Iterator begin() const;
  Iterator end() const;

 private:
  friend class JsonDocument;
  friend class JsonParser;
  Json(const JsonDocument* document, uint32_t at) : document_(document), at_(at) {}
  const JsonDocument* document_ = nullptr;
  uint32_t at_ = 0;
};

class JsonDocument {
 public:
  // Deeper than any header, shallow enough for every stack.
  static constexpr int kDeepest = 32;
  static constexpr size_t kLongest = size_t{16} << 20;

  // Null where `text` is one JSON value; else what is wrong with it at byte `where`.
  const char* parse(std::string_view text, size_t* where);
  Json root() const { return Json(this, 0); }

 private:
  friend class Json;
  friend class JsonParser;
  struct Node {
    JsonKind kind = JsonKind::kNull;
    uint32_t end = 0;     // the node after this one's subtree
    uint32_t length = 0;  // bytes of a string, elements of an array, members of an object
    int64_t number = 0;   // an integer or bool; where a string starts
  };
  std::vector<Node> nodes_;
  std::string strings_;
};

}  // namespace sparsecore::network
