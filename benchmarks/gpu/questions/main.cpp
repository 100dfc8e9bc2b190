// cuda_questions: what the GPU at hand gives, one line of JSON per question.
//
//   cuda_questions --list     the names, the most valuable first
//   cuda_questions NAME...    asks; without names, all
//
// Exits 0 when every kernel computed what scalar code does.
#include <cstdio>
#include <cstring>

#include "question.h"

namespace sparsecore::questions {

std::vector<Question> all_questions() {
  std::vector<Question> questions;
  add_wgmma_questions(questions);
  add_load_questions(questions);
  add_mma_questions(questions);
  add_bulk_questions(questions);
  add_box_questions(questions);
  add_reduction_questions(questions);
  std::stable_sort(questions.begin(), questions.end(),
                   [](const Question& a, const Question& b) { return a.value < b.value; });
  return questions;
}

namespace {

// The first difference may quote; JSON may not.
std::string plain(std::string text) {
  for (char& c : text) {
    if (c == '"' || c == '\\' || c == '\n') c = ' ';
  }
  return text;
}

bool ask(const Question& question) {
  Answer answer;
  try {
    answer = question.ask();
  } catch (const std::exception& error) {
    answer.wrong = error.what();
  }
  std::printf("{\"question\": \"%s\", \"wrong\": \"%s\", \"emulated\": %s", question.name.c_str(),
              plain(answer.wrong).c_str(), SC_EMULATED ? "true" : "false");
  const auto number = [](const char* name, double value) {
    if (value > 0) std::printf(", \"%s\": %.6g", name, value);
  };
  number("us", answer.seconds * 1e6);
  number("cycles", answer.cycles);
  if (answer.seconds > 0) {
    number("tflops", answer.operations / answer.seconds * 1e-12);
    number("gbytes_per_second", answer.bytes / answer.seconds * 1e-9);
  }
  if (answer.cycles > 0) {
    number("operations_per_cycle", answer.operations / answer.cycles / answer.blocks);
    number("bytes_per_cycle", answer.bytes / answer.cycles / answer.blocks);
  }
  number("bytes_in_flight", answer.in_flight);
  std::printf("}\n");
  std::fflush(stdout);
  return answer.wrong.empty();
}

}  // namespace
}  // namespace sparsecore::questions

int main(int argc, char** argv) {
  using namespace sparsecore::questions;
  const bool list = argc > 1 && std::strcmp(argv[1], "--list") == 0;
  const int capability = sparsecore::current_device().capability;
  bool good = true;
  int asked = 0;
  for (const Question& question : all_questions()) {
    const auto named = [&](const char* name) { return question.name == name; };
    if (question.capability > capability) continue;
    if (list) {
      std::printf("{\"question\": \"%s\"}\n", question.name.c_str());
    } else if (argc == 1 || std::any_of(argv + 1, argv + argc, named)) {
      good = ask(question) && good;
      asked++;
    }
  }
  if (!list && asked < argc - 1) std::fprintf(stderr, "cuda_questions: no such question; see cuda_questions --list\n");
  return good && (list || asked >= argc - 1) ? 0 : 1;
}
