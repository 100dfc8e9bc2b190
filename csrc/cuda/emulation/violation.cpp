#include "violation.h"

#include <cxxabi.h>
#include <dlfcn.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "machine.h"

namespace cuda_emulation {
namespace {

struct Frame {
  std::string function;
  std::string place;  // file:line
};

std::string demangled(const char* name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string result = status == 0 ? text : name;
  std::free(text);
  return result;
}

std::string without_arguments(const std::string& function) {
  int depth = 0;  // inside of template arguments, or of the name of a lambda
  for (size_t i = 0; i < function.size(); i++) {
    if (function[i] == '<' || function[i] == '{') depth++;
    if (function[i] == '>' || function[i] == '}') depth--;
    const bool named =
        function.compare(i, 11, "(anonymous ") == 0 || (i >= 8 && function.compare(i - 8, 10, "operator()") == 0);
    if (function[i] == '(' && depth == 0 && i > 0 && !named) return function.substr(0, i);
  }
  return function;
}

// The functions inlined at an address and the one that holds it, innermost first. addr2line knows them where the
// compiler left line tables (-g1); the dynamic symbols are the second best.
std::vector<Frame> ask(const void* address) {
  Dl_info info{};
  if (dladdr(address, &info) == 0 || info.dli_fname == nullptr) return {};
  const uintptr_t offset = reinterpret_cast<uintptr_t>(address) - 1;  // inside of the call
  const uintptr_t base = reinterpret_cast<uintptr_t>(info.dli_fbase);
  std::vector<Frame> frames;
  for (uintptr_t guess : {offset - base, offset}) {  // position-independent, or not
    std::string file = info.dli_fname;
    if (file.find('/') == std::string::npos) file = "/proc/self/exe";
    if (file.find('\'') != std::string::npos) break;
    // A child would resolve its own /proc/self/exe.
    char real[4096];
    if (realpath(file.c_str(), real) == nullptr) break;
    const std::string command = format_text("addr2line -Cfie '%s' 0x%zx 2>/dev/null", real, static_cast<size_t>(guess));
    FILE* pipe = popen(command.c_str(), "r");
    if (pipe == nullptr) break;
    char line[8192];
    std::vector<std::string> lines;
    while (fgets(line, sizeof line, pipe) != nullptr) {
      std::string text = line;
      while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
      lines.push_back(text);
    }
    pclose(pipe);
    for (size_t i = 0; i + 1 < lines.size(); i += 2) {
      std::string place = lines[i + 1].substr(0, lines[i + 1].find(" (discriminator"));
      if (place.compare(0, 2, "??") != 0) frames.push_back({without_arguments(lines[i]), place});
    }
    if (!frames.empty()) return frames;
  }
  if (info.dli_sname != nullptr) {
    const size_t into = offset - reinterpret_cast<uintptr_t>(info.dli_saddr);
    frames.push_back({without_arguments(demangled(info.dli_sname)), format_text("+0x%zx", into)});
  }
  return frames;
}

const std::vector<Frame>& frames_of(const void* address) {
  static std::mutex mutex;
  static std::map<const void*, std::vector<Frame>> known;
  std::lock_guard<std::mutex> lock(mutex);
  auto found = known.find(address);
  if (found == known.end()) found = known.emplace(address, ask(address)).first;
  return found->second;
}

// Wrappers are not where a kernel goes wrong.
bool is_plumbing(const Frame& frame) {
  return frame.function.find("cuda_emulation::") == 0 || frame.function.find("ptx::") != std::string::npos ||
         frame.function.compare(0, 2, "__") == 0 || frame.place.find("/emulation/") != std::string::npos;
}

std::string short_place(const std::string& place) {
  const size_t slash = place.rfind('/');
  return slash == std::string::npos ? place : place.substr(slash + 1);
}

std::string formatted(const char* format, va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  std::string text(static_cast<size_t>(std::vsnprintf(nullptr, 0, format, again)), '\0');
  va_end(again);
  std::vsnprintf(text.data(), text.size() + 1, format, arguments);
  return text;
}

}  // namespace

std::string format_text(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::string text = formatted(format, arguments);
  va_end(arguments);
  return text;
}

void violation(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::string text = formatted(format, arguments);
  va_end(arguments);
  if (running != nullptr) {
    const Site here = current_site();
    text += describe_running(here.depth > 0 ? here : lane().issued_at);
  }
  throw Violation(text);
}

std::string describe_running(const Site& site) {
  const Lane& l = lane();
  const uint3 b = l.cta->block;
  const std::string place = site.describe();
  return format_text("\n  block (%u, %u, %u), thread (%u, %u, %u), lane %d of warp %d%s", b.x, b.y, b.z, l.thread.x,
                     l.thread.y, l.thread.z, l.number, l.warp->index, place.empty() ? "" : (", at " + place).c_str());
}

std::string Site::describe() const {
  for (int i = 0; i < depth; i++) {
    for (const Frame& frame : frames_of(frames[i])) {
      if (!is_plumbing(frame)) return short_place(frame.place) + " (" + frame.function + ")";
    }
  }
  return "";
}

std::string Site::describe_all() const {
  std::string text;
  for (int i = 0; i < depth; i++) {
    const std::vector<Frame>& known = frames_of(frames[i]);
    if (known.empty()) text += format_text("%p\n", frames[i]);
    for (const Frame& frame : known) text += frame.function + " " + frame.place + "\n";
  }
  return text;
}

// Both ABIs keep the caller's frame pointer at the frame pointer and the return address above it. The chain ends where
// it leaves the fiber's stack, as it does at once in code without frame pointers.
__attribute__((no_sanitize("address"))) static void walk(Site& site, const void* from) {
  const Stack* stack = running != nullptr ? running->fiber.stack() : nullptr;
  if (stack == nullptr) return;
  const std::byte* frame = static_cast<const std::byte*>(from);
  while (site.depth < Site::kDepth && frame >= stack->low() && frame + 16 <= stack->high() &&
         reinterpret_cast<uintptr_t>(frame) % 8 == 0) {
    const void* const* record = reinterpret_cast<const void* const*>(frame);
    if (record[1] == nullptr) break;
    site.frames[site.depth++] = record[1];
    const std::byte* caller = static_cast<const std::byte*>(record[0]);
    if (caller <= frame) break;
    frame = caller;
  }
}

__attribute__((noinline)) Site current_site() {
  Site site;
  walk(site, __builtin_frame_address(0));
  return site;
}

Site site_from(const void* address, const void* frame) {
  Site site;
  site.frames[site.depth++] = address;
  walk(site, frame);
  return site;
}

}  // namespace cuda_emulation
