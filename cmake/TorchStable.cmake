# Asks the Python interpreter where torch is; no find_package(Torch), which drags in its compiler flags and CUDA.
# Target torch::stable: headers, libtorch_cpu, and the oldest torch the operators run under, set here and nowhere else.
set(SPARSECORE_TORCH_TARGET 0x020b000000000000)  # 2.11

find_package(Python COMPONENTS Interpreter REQUIRED)
execute_process(
  COMMAND ${Python_EXECUTABLE} -c "import torch, pathlib; print(pathlib.Path(torch.__file__).parent.as_posix())"
  OUTPUT_VARIABLE SPARSECORE_TORCH_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE _failed ERROR_VARIABLE _why)
if(_failed)
  message(FATAL_ERROR "SPARSECORE_TORCH=ON, but ${Python_EXECUTABLE} cannot import torch (2.11 or later). "
                      "Install it there, or build without isolation: pip install --no-build-isolation .\n${_why}")
endif()
find_library(SPARSECORE_TORCH_CPU torch_cpu PATHS ${SPARSECORE_TORCH_ROOT}/lib NO_DEFAULT_PATH NO_CACHE REQUIRED)

add_library(torch_stable INTERFACE)
add_library(torch::stable ALIAS torch_stable)
target_include_directories(torch_stable SYSTEM INTERFACE ${SPARSECORE_TORCH_ROOT}/include)
target_compile_definitions(torch_stable INTERFACE TORCH_TARGET_VERSION=${SPARSECORE_TORCH_TARGET})
target_link_libraries(torch_stable INTERFACE ${SPARSECORE_TORCH_CPU})
