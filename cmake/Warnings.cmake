# One interface target that carries warnings and sanitizers; kernels, operators and tests link it privately.
add_library(sparsecore_options INTERFACE)
target_compile_options(sparsecore_options INTERFACE -Wall -Wextra -Wno-unused-parameter)
# Products and sums are fused only where a kernel says so: results must not depend on the optimiser.
target_compile_options(sparsecore_options INTERFACE -ffp-contract=off)
if(SPARSECORE_WERROR)
  target_compile_options(sparsecore_options INTERFACE -Werror)
endif()
if(SPARSECORE_SANITIZE)
  target_compile_options(sparsecore_options INTERFACE -fsanitize=${SPARSECORE_SANITIZE} -fno-omit-frame-pointer -g1
                                                     -fno-sanitize-recover=all)
  target_link_options(sparsecore_options INTERFACE -fsanitize=${SPARSECORE_SANITIZE})
endif()
