#include "cpu/network/json.h"

#include <algorithm>

namespace sparsecore::network {

class JsonParser {
 public:
  JsonParser(std::string_view text, JsonDocument* document) : text_(text), document_(*document) {}

  const char* run(size_t* where) {
    document_.nodes_.clear();
    document_.strings_.clear();
    if (text_.size() > JsonDocument::kLongest)
      fail("longer than any header");
    else if (value(0) && (space(), at_ < text_.size()))
      fail("more than one value");
    *where = at_;
    return error_;
  }

 private:
  using Node = JsonDocument::Node;

  bool fail(const char* what) {
    if (!error_) error_ = what;
    return false;
  }
  bool more() const { return at_ < text_.size(); }
  char next() const { return more() ? text_[at_] : '\0'; }
  bool take(char c) {
    if (next() != c || !more()) return false;
    ++at_;
    return true;
  }
  void space() {
    while (more() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r')) ++at_;
  }
  bool digit() const { return next() >= '0' && next() <= '9'; }

  uint32_t add(JsonKind kind, int64_t number = 0) {
    const uint32_t index = static_cast<uint32_t>(document_.nodes_.size());
    document_.nodes_.push_back({kind, index + 1, 0, number});
    return index;
  }
  void close(uint32_t index, uint32_t length) {
    document_.nodes_[index].end = static_cast<uint32_t>(document_.nodes_.size());
    document_.nodes_[index].length = length;
  }

  bool value(int depth) {
    space();
    if (depth > JsonDocument::kDeepest) return fail("nested too deeply");
    switch (next()) {
      case '{': return object(depth);
      case '[': return array(depth);
      case '"': return string();
      case 't': return word("true", JsonKind::kBool, 1);
      case 'f': return word("false", JsonKind::kBool, 0);
      case 'n': return word("null", JsonKind::kNull, 0);
      default: return number();
    }
  }

  bool word(std::string_view letters, JsonKind kind, int64_t number) {
    if (text_.substr(at_, letters.size()) != letters) return fail("no JSON value");
    at_ += letters.size();
    add(kind, number);
    return true;
  }

  bool array(int depth) {
    ++at_;
    const uint32_t index = add(JsonKind::kArray);
    uint32_t length = 0;
    space();
    if (!take(']')) {
      do {
        if (!value(depth + 1)) return false;
        ++length;
        space();
      } while (take(','));
      if (!take(']')) return fail("an array goes on with neither ',' nor ']'");
    }
    close(index, length);
    return true;
  }

  bool object(int depth) {
    ++at_;
    const uint32_t index = add(JsonKind::kObject);
    uint32_t length = 0;
    space();
    if (!take('}')) {
      do {
        space();
        if (next() != '"') return fail("a key that is no string");
        if (!string()) return false;
        space();
        if (!take(':')) return fail("a key without ':'");
        if (!value(depth + 1)) return false;
        ++length;
        space();
      } while (take(','));
      if (!take('}')) return fail("an object goes on with neither ',' nor '}'");
    }
    close(index, length);
    return distinct(index);
  }

  // Two equal keys mean two readers may see two different files.
  bool distinct(uint32_t index) {
    std::vector<std::string_view> keys;
    const Json object(&document_, index);
    keys.reserve(object.size());
    for (auto member = object.begin(); member != object.end(); ++member, ++member) keys.push_back((*member).string());
    std::sort(keys.begin(), keys.end());
    return std::adjacent_find(keys.begin(), keys.end()) == keys.end() || fail("a key that appears twice");
  }

  bool number() {
    const bool negative = take('-');
    if (!digit()) return fail("no JSON value");
    const bool leading_zero = next() == '0';
    const size_t first = at_;
    uint64_t magnitude = 0;
    bool fits = true;
    for (; digit(); ++at_) {
      const uint64_t d = static_cast<uint64_t>(text_[at_] - '0');
      fits = fits && magnitude <= (static_cast<uint64_t>(INT64_MAX) - d) / 10;
      if (fits) magnitude = magnitude * 10 + d;
    }
    if (leading_zero && at_ - first > 1) return fail("a number with a leading zero");
    bool whole = true;
    if (take('.')) {
      whole = false;
      if (!digit()) return fail("a number without digits after its point");
      while (digit()) ++at_;
    }
    if (take('e') || take('E')) {
      whole = false;
      if (!take('+')) take('-');
      if (!digit()) return fail("a number without digits in its exponent");
      while (digit()) ++at_;
    }
    const int64_t signed_value = static_cast<int64_t>(magnitude);
    if (whole && fits)
      add(JsonKind::kInteger, negative ? -signed_value : signed_value);
    else
      add(JsonKind::kNumber);
    return true;
  }

  bool string() {
    ++at_;
    std::string& out = document_.strings_;
    const size_t start = out.size();
    while (more() && text_[at_] != '"') {
      const char c = text_[at_++];
      if (static_cast<unsigned char>(c) < 0x20) return fail("a control character inside a string");
      if (c != '\\')
        out.push_back(c);
      else if (!escape())
        return false;
    }
    if (!take('"')) return fail("a string that does not end");
    const uint32_t index = add(JsonKind::kString, static_cast<int64_t>(start));
    document_.nodes_[index].length = static_cast<uint32_t>(out.size() - start);
    out.push_back('\0');
    return true;
  }

  bool escape() {
    std::string& out = document_.strings_;
    const char c = next();
    if (more()) ++at_;
    switch (c) {
      case '"':
      case '\\':
      case '/': out.push_back(c); return true;
      case 'b': out.push_back('\b'); return true;
      case 'f': out.push_back('\f'); return true;
      case 'n': out.push_back('\n'); return true;
      case 'r': out.push_back('\r'); return true;
      case 't': out.push_back('\t'); return true;
      case 'u': break;
      default: return fail("an unknown escape inside a string");
    }
    uint32_t point = 0, low = 0;
    if (!hex(&point)) return false;
    if (point >= 0xd800 && point < 0xdc00) {
      if (!take('\\') || !take('u') || !hex(&low) || low < 0xdc00 || low > 0xdfff) return fail("half a surrogate pair");
      point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
    } else if (point >= 0xdc00 && point < 0xe000) {
      return fail("half a surrogate pair");
    }
    if (point == 0) return fail("a zero character inside a string");
    append_utf8(point);
    return true;
  }

  bool hex(uint32_t* point) {
    *point = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = next();
      uint32_t digit = 0;
      if (c >= '0' && c <= '9')
        digit = static_cast<uint32_t>(c - '0');
      else if ((c | 32) >= 'a' && (c | 32) <= 'f')
        digit = static_cast<uint32_t>((c | 32) - 'a' + 10);
      else
        return fail("an escape without four hexadecimal digits");
      *point = *point << 4 | digit;
      ++at_;
    }
    return true;
  }

  void append_utf8(uint32_t point) {
    std::string& out = document_.strings_;
    const auto tail = [&](int shift) { out.push_back(static_cast<char>(0x80 | ((point >> shift) & 0x3f))); };
    if (point < 0x80) {
      out.push_back(static_cast<char>(point));
    } else if (point < 0x800) {
      out.push_back(static_cast<char>(0xc0 | point >> 6)), tail(0);
    } else if (point < 0x10000) {
      out.push_back(static_cast<char>(0xe0 | point >> 12)), tail(6), tail(0);
    } else {
      out.push_back(static_cast<char>(0xf0 | point >> 18)), tail(12), tail(6), tail(0);
    }
  }

  std::string_view text_;
  JsonDocument& document_;
  size_t at_ = 0;
  const char* error_ = nullptr;
};

const char* JsonDocument::parse(std::string_view text, size_t* where) { return JsonParser(text, this).run(where); }

bool Json::is(JsonKind kind) const { return document_ && document_->nodes_[at_].kind == kind; }

int64_t Json::integer() const { return document_->nodes_[at_].number; }

std::string_view Json::string() const {
  const auto& node = document_->nodes_[at_];
  return {document_->strings_.data() + node.number, node.length};
}

uint32_t Json::size() const { return document_->nodes_[at_].length; }

Json Json::find(std::string_view key) const {
  if (is(JsonKind::kObject))
    for (auto member = begin(); member != end(); ++member) {
      const bool found = (*member).string() == key;
      ++member;
      if (found) return *member;
    }
  return {};
}

Json::Iterator& Json::Iterator::operator++() {
  at_ = document_->nodes_[at_].end;
  return *this;
}
Json::Iterator Json::begin() const { return {document_, at_ + 1}; }
Json::Iterator Json::end() const { return {document_, document_->nodes_[at_].end}; }

}  // namespace sparsecore::network
