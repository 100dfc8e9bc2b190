// cuda_conformance: every check on the GPU at hand, one line of JSON each as soon as it is known, the most valuable
// ones first.
//
//   cuda_conformance [SECONDS [EACH]]      stop starting checks after so long (default 120)
//
// The checks run in a child process, and in a new one after a check that broke the device's context or did not return
// in EACH seconds (default 10): one bad wrapper costs its own line and no other. Exits 0 when all that ran passed.
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cuda/conformance/check.h"

namespace {

using sparsecore::conformance::Check;
using Clock = std::chrono::steady_clock;

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c == '\n' ? ' ' : c;
  }
  return result + "\"";
}

// Runs checks from `first` on and writes "<index> <result>\n" after each: "pass", "skip", or what differs.
[[noreturn]] void child(const std::vector<Check>& checks, size_t first, int pipe) {
  const int capability = sparsecore::current_device().capability;
  for (size_t i = first; i < checks.size(); ++i) {
    std::string result;
    bool broken = false;
    if (capability == 0) {
      result = "no CUDA device";
    } else if (checks[i].capability > capability) {
      result = "skip";
    } else {
      try {
        result = checks[i].run();
        if (result.empty()) result = "pass";
      } catch (const std::exception& error) {
        result = error.what();
        broken = true;
      }
    }
    for (char& c : result) c = c == '\n' ? ' ' : c;
    const std::string line = std::to_string(i) + " " + result + "\n";
    if (write(pipe, line.data(), line.size()) < 0 || broken) break;
  }
  _exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 120;
  const int each = argc > 2 ? std::atoi(argv[2]) : 10;
  const auto start = Clock::now();
  const std::vector<Check> checks = sparsecore::conformance::all_checks();
  int failed = 0;
  const auto report = [&](size_t i, const std::string& result) {
    const bool good = result == "pass" || result == "skip";
    failed += !good;
    std::printf("{\"check\": %s, \"capability\": %d, \"result\": \"%s\"%s%s}\n", quoted(checks[i].name).c_str(),
                checks[i].capability, good ? result.c_str() : "fail",
                good ? "" : ", \"what\": ", good ? "" : quoted(result).c_str());
    std::fflush(stdout);
  };
  size_t next = 0;
  while (next < checks.size() && std::chrono::duration<double>(Clock::now() - start).count() < seconds) {
    int ends[2];
    if (pipe(ends) != 0) return 2;
    const pid_t process = fork();
    if (process < 0) return 2;
    if (process == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      close(ends[0]);
      child(checks, next, ends[1]);
    }
    close(ends[1]);
    std::string text;
    const size_t before = next;
    bool hangs = false;
    for (char buffer[4096];;) {
      pollfd wanted{ends[0], POLLIN, 0};
      hangs = poll(&wanted, 1, 1000 * each) == 0;
      const ssize_t count = hangs ? 0 : read(ends[0], buffer, sizeof buffer);
      if (count <= 0) break;
      text.append(buffer, static_cast<size_t>(count));
      for (size_t end; (end = text.find('\n')) != std::string::npos; text.erase(0, end + 1)) {
        report(next, text.substr(text.find(' ') + 1, end - text.find(' ') - 1));
        ++next;
      }
    }
    close(ends[0]);
    if (hangs) kill(process, SIGKILL);
    waitpid(process, nullptr, 0);
    if (next < checks.size() && (hangs || next == before)) {
      report(next, hangs ? "does not return" : "the process ended");
      ++next;
    }
  }
  std::printf("{\"checks\": %zu, \"ran\": %zu, \"failed\": %d}\n", checks.size(), next, failed);
  return failed > 0 || next < checks.size();
}
