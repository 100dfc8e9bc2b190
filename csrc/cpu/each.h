// Loops that are written out before any optimisation.
#pragma once

#include <cstddef>
#include <utility>

namespace sparsecore {
namespace {

// body<0>() .. body<Count - 1>(), written out before any optimisation: arrays that are only indexed by such constants
// are registers from the start.
template <size_t... Index, typename Body>
__attribute__((always_inline)) inline void each_of(std::index_sequence<Index...>, Body& body) {
  (body.template operator()<Index>(), ...);
}
template <size_t Count, typename Body>
__attribute__((always_inline)) inline void each(Body&& body) {
  each_of(std::make_index_sequence<Count>(), body);
}

}  // namespace
}  // namespace sparsecore
