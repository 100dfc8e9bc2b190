# SPARSECORE_NVCC: whether the CUDA kernels are compiled by nvcc, as SPARSECORE_CUDA asks. Needs CUDA 13: the kernels use
# instructions, and the build log lint sentences, of that release.
set(SPARSECORE_NVCC OFF)
if(SPARSECORE_CUDA AND NOT SPARSECORE_CUDA STREQUAL "EMULATED")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    # CMake tries the compiler out for one architecture; targets name their own.
    set(CMAKE_CUDA_ARCHITECTURES 80)
    enable_language(CUDA)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13.0)
      set(SPARSECORE_NVCC ON)
    elseif(NOT SPARSECORE_CUDA STREQUAL "AUTO")
      message(FATAL_ERROR "The CUDA kernels need nvcc 13.0 or later, and ${CMAKE_CUDA_COMPILER} is "
                          "${CMAKE_CUDA_COMPILER_VERSION}. Name another one with -DCMAKE_CUDA_COMPILER, or choose "
                          "-DSPARSECORE_CUDA=AUTO, which goes without.")
    endif()
  elseif(NOT SPARSECORE_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "The CUDA kernels need nvcc, and there is none on the path. Name it with -DCMAKE_CUDA_COMPILER, "
                        "or choose -DSPARSECORE_CUDA=AUTO, which goes without.")
  endif()
endif()
