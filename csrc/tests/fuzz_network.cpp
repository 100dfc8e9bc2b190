// Malformed network files through the loader and, where they load, through a run: whatever a file holds, it is refused
// in words, or runs inside its buffers. Made for the address sanitizer: the file, every input and every output is a
// heap block of exactly its size.
//
//   fuzz_network [cases] [first case] [seed]
//
// Case i depends on seed and i alone, so a failing case, named on the way out, can be run again by itself.
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "network_model.h"
#include "sparsecore/cpu.h"
#include "sparsecore/parallel.h"

using namespace network_model;

namespace {

int64_t current_case;
uint64_t current_seed;

[[noreturn]] void fail(const char* what, const char* detail = "") {
  std::fprintf(stderr, "case %lld (seed %llu, %s): %s %s\nagain: fuzz_network 1 %lld %llu\n",
               static_cast<long long>(current_case), static_cast<unsigned long long>(current_seed),
               isa_name(current_isa()), what, detail, static_cast<long long>(current_case),
               static_cast<unsigned long long>(current_seed));
  std::abort();
}

// Small networks that have every kind of step between them.
std::vector<Model> sound_models() {
  std::vector<Model> models;
  const auto begin = [&]() -> Model& {
    models.emplace_back(models.size() + 1);
    models.back().activation = "relu";
    return models.back();
  };
  {
    Model& m = begin();
    int x = m.stem(m.input({3, 5, 5}, "hwc"), 3, WindowSize::square(3, 2, 1));
    x = m.depthwise(x, WindowSize::square(3, 1, 1));
    m.output(m.conv(x, 3, WindowSize::square(1), {1, 1, 16, 2, 5}, x));
  }
  {
    Model& m = begin();
    const int x = m.input({4, 3, 3});
    m.output(m.conv(x, 5, WindowSize::square(3, 1, 1), {2, 1, 16, 2, 4}), "hwc");
  }
  {
    Model& m = begin();
    const int x = m.input({5, 4, 1}, "hwc");
    m.output(m.conv(x, 4, {2, 1, 1}, {4, 2, 16, 1, 5, DType::kInt8}));
  }
  {
    Model& m = begin();
    m.output(m.softmax(m.linear(m.input({20}), 6, {1, 1, 16, 3, 4, DType::kBFloat16})));
  }
  {
    Model& m = begin();
    const int x = m.input({20});
    m.output(m.linear(m.dense(x, 9, "F16"), 3, {4, 1, 512, 3, 4, DType::kFloat16}));
  }
  {
    Model& m = begin();
    const int x = m.input({3, 4, 4}), v = m.input({3});
    const int y = m.add(m.scale(x, v), x);
    m.output(m.squeeze_excite(m.activate_step(y, "hard_swish"), 2, "relu", "hard_sigmoid"));
  }
  {
    Model& m = begin();
    const int x = m.input({2, 5, 4});
    const int y = m.concat({m.pool(x, WindowSize::square(3, 1, 1), true), x, m.pool(x, {1, 1}, false)});
    m.output(m.flatten(y));
    m.output(m.global_average_pool(m.pool(y, WindowSize::square(2, 2), false, false)));
    m.output(x);
  }
  return models;
}

template <typename T>
T pick(Random& random, std::initializer_list<T> choices) {
  return choices.begin()[random.below(static_cast<int64_t>(choices.size()))];
}

// The runs of `text` that are numbers, strings or words.
struct Token {
  size_t at, length;
};
bool is_word(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-' || c == '.';
}
std::vector<Token> tokens_of(const std::string& text) {
  std::vector<Token> tokens;
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    while (end < text.size() && is_word(text[end])) ++end;
    if (end > at) tokens.push_back({at, end - at});
    at = end + 1;
  }
  return tokens;
}

// A number becomes another, a word becomes another word of the same text, text is doubled or lost.
void damage_text(Random& random, std::string* text) {
  const std::vector<Token> tokens = tokens_of(*text);
  if (tokens.empty()) return;
  const Token one = tokens[static_cast<size_t>(random.below(static_cast<int64_t>(tokens.size())))];
  const Token two = tokens[static_cast<size_t>(random.below(static_cast<int64_t>(tokens.size())))];
  const std::string word = text->substr(one.at, one.length);
  const bool number = word[0] == '-' || (word[0] >= '0' && word[0] <= '9');
  switch (random.below(number ? 8 : 4)) {
    case 0: text->replace(one.at, one.length, text->substr(two.at, two.length)); break;
    case 1: text->erase(std::min(one.at, two.at), one.at < two.at ? two.at - one.at : one.at - two.at); break;
    case 2: text->insert(one.at, text->substr(two.at, static_cast<size_t>(random.below(60)))); break;
    case 3: (*text)[one.at] = static_cast<char>(random.bits()); break;
    case 4:
      text->replace(one.at, one.length,
                    pick(random, {"-1", "0", "1", "2147483647", "2147483648", "9223372036854775807", "1e3", "0.5",
                                  "99999999999999999999", "65536", "32768", "257", "[[[[", "null"}));
      break;
    default:
      text->replace(one.at, one.length,
                    std::to_string(std::clamp<int64_t>(std::atoll(word.c_str()), -99, 99999) + random.below(5) - 2));
  }
}

void damage_tensor(Random& random, FileTensor* tensor) {
  const int64_t count = static_cast<int64_t>(tensor->data.size());
  switch (random.below(8)) {
    case 0:
      tensor->dtype = pick(random, {"F32", "F16", "BF16", "I8", "U8", "I16", "U16", "I32", "F64", "I64", "Q4"});
      break;
    case 1: tensor->name += pick(random, {"", "x", ".values", ".weight"}); break;
    case 2:
      if (!tensor->shape.empty())
        tensor->shape[static_cast<size_t>(random.below(static_cast<int64_t>(tensor->shape.size())))] +=
            random.below(5) - 2;
      break;
    case 3: tensor->data.resize(static_cast<size_t>(std::max<int64_t>(0, count + random.below(9) - 4))); break;
    default:
      for (int64_t times = 1 + random.below(3); count && times > 0; --times) {
        uint8_t& byte = tensor->data[static_cast<size_t>(random.below(count))];
        byte = random.one_in(2) ? static_cast<uint8_t>(random.bits())
                                : static_cast<uint8_t>(byte + pick<int>(random, {-1, 1, 2, 16}));
      }
  }
}

void damage_bytes(Random& random, std::vector<uint8_t>* file) {
  const int64_t bytes = static_cast<int64_t>(file->size());
  switch (random.below(4)) {
    case 0: file->resize(static_cast<size_t>(random.below(bytes + 1))); break;
    case 1: file->insert(file->begin() + random.below(bytes), static_cast<uint8_t>(random.bits())); break;
    case 2: (*file)[static_cast<size_t>(random.below(8))] = static_cast<uint8_t>(random.bits()); break;
    default:
      for (int64_t times = 1 + random.below(4); times > 0; --times)
        (*file)[static_cast<size_t>(random.below(bytes))] = static_cast<uint8_t>(random.bits());
  }
}

std::vector<uint8_t> damaged(Random& random, const Model& model) {
  std::string json = model.json();
  std::vector<FileTensor> tensors = model.tensors;
  std::string version = "1";
  bool header = false, bytes = false;
  for (int64_t times = 1 + random.below(3); times > 0; --times) switch (random.below(10)) {
      case 0:
      case 1:
      case 2:
      case 3: damage_text(random, &json); break;
      case 4:
      case 5:
      case 6:
        if (!tensors.empty())
          damage_tensor(random, &tensors[static_cast<size_t>(random.below(static_cast<int64_t>(tensors.size())))]);
        break;
      case 7: header = true; break;
      case 8: bytes = true; break;
      default:
        if (random.one_in(8)) version = "2";
    }
  std::string text = header_of(json, tensors, version);
  if (header) damage_text(random, &text);
  std::vector<uint8_t> file = join(text, tensors);
  if (bytes) damage_bytes(random, &file);
  return file;
}

int64_t loaded, ran, refused;

// Exact blocks; what inputs hold does not matter to bounds.
void run_network(Random& random, Network* network) {
  constexpr int64_t kMost = 1 << 12;
  int64_t work = 0;
  for (int i = 0; i < network_steps(network); ++i) {
    const NetworkStep step = network_step(network, i);
    if (!step.op || !step.weight || !step.kernel || step.products < 0) fail("a step that says nothing");
    work += step.dense_products;
  }
  if (network_arena_bytes(network) > 16 * kMost || work > 64 * kMost) return;
  std::vector<std::unique_ptr<float[]>> blocks;
  std::vector<const float*> inputs;
  std::vector<float*> outputs;
  const int64_t images = 1 + random.below(2);
  const auto block = [&](const NetworkValue& value) {
    const int64_t count = images * value.shape[0] * value.shape[1] * value.shape[2];
    if (count > kMost) return false;
    blocks.emplace_back(new float[static_cast<size_t>(count)]);
    for (int64_t i = 0; i < count; ++i) blocks.back()[static_cast<size_t>(i)] = random.small();
    return true;
  };
  for (int i = 0; i < network_inputs(network); ++i) {
    if (!block(network_input(network, i))) return;
    inputs.push_back(blocks.back().get());
  }
  for (int i = 0; i < network_outputs(network); ++i) {
    if (!block(network_output(network, i))) return;
    outputs.push_back(blocks.back().get());
  }
  const Status status = network_run(network, images, inputs.data(), outputs.data());
  if (status != Status::kOk) fail("a file that loads does not run:", describe(status));
  ++ran;
}

void run_case(const std::vector<Model>& models) {
  Random random(current_seed * 0x9e3779b97f4a7c15u ^ static_cast<uint64_t>(current_case) * 0xd1342543de82ef95u);
  const Model& model = models[static_cast<size_t>(random.below(static_cast<int64_t>(models.size())))];
  const bool sound = random.one_in(16);
  const std::vector<uint8_t> file = sound ? model.file() : damaged(random, model);
  const std::unique_ptr<uint8_t[]> exact(new uint8_t[file.size()]);
  std::copy(file.begin(), file.end(), exact.get());
  NetworkError error;
  Network* network = network_load(exact.get(), file.size(), &error);
  if (sound && !network) fail("a sound file is refused:", error.text);
  if (!network) {
    ++refused;
    if (!error.text[0]) fail("refused without a word");
    return;
  }
  ++loaded;
  if (error.text[0]) fail("loaded and complained:", error.text);
  run_network(random, network);
  network_free(network);
}

// Tasks one after the other, cut as for several threads.
int threads = 1;
void run_serially(int64_t count, Task task, void* context) {
  for (int64_t i = count; i-- > 0;) task(context, i);
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t cases = argc > 1 ? std::atoll(argv[1]) : 100000, first = argc > 2 ? std::atoll(argv[2]) : 0;
  current_seed = argc > 3 ? static_cast<uint64_t>(std::atoll(argv[3])) : 1;
  set_parallel_host({run_serially, [] { return threads; }});
  Isa levels[16];
  const int level_count = available_isas(levels, 16);
  const std::vector<Model> models = sound_models();
  for (current_case = first; current_case < first + cases; ++current_case) {
    set_isa_cap(levels[current_case % level_count]);
    threads = static_cast<int>(1 + current_case % 3);
    run_case(models);
  }
  std::printf("%lld files refused, %lld loaded, %lld of them run\n", static_cast<long long>(refused),
              static_cast<long long>(loaded), static_cast<long long>(ran));
  const bool both = cases < 1000 || (20 * ran > cases && 20 * refused > cases);
  if (!both) std::printf("hardly any file was refused, or hardly any ran\n");
  return both ? 0 : 1;
}
