// How loading a network says what is wrong: one sentence into a NetworkError.
#pragma once

#include <cstdarg>
#include <cstdio>

#include "sparsecore/network.h"

namespace sparsecore::network {

struct Failure {
  NetworkError* error;

  // Always false, so that a check reads `return failure.say(...)`. The first failure stays.
  __attribute__((format(printf, 2, 3))) bool say(const char* format, ...) const {
    va_list arguments;
    va_start(arguments, format);
    if (error && !error->text[0]) std::vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    return false;
  }
};

}  // namespace sparsecore::network
