# WebAssembly with SIMD, by the clang and the C++ library inside zig; tests run in node.
# pip install ziglang, or a zig on the path, or -DSPARSECORE_ZIG=/path/to/zig
set(CMAKE_SYSTEM_NAME WASI)
set(CMAKE_SYSTEM_PROCESSOR wasm32)
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES SPARSECORE_ZIG)

if(NOT SPARSECORE_ZIG)
  # The pip package keeps its binary inside the module's folder. A virtual environment comes first.
  find_program(SPARSECORE_ZIG_PYTHON NAMES python3 python HINTS "$ENV{VIRTUAL_ENV}/bin" NO_CMAKE_FIND_ROOT_PATH)
  if(SPARSECORE_ZIG_PYTHON)
    execute_process(
      COMMAND ${SPARSECORE_ZIG_PYTHON} -c "import os, ziglang; print(os.path.join(os.path.dirname(ziglang.__file__), 'zig'))"
      OUTPUT_VARIABLE _zig OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  find_program(SPARSECORE_ZIG NAMES "${_zig}" zig NO_CMAKE_FIND_ROOT_PATH DOC "The zig executable")
endif()
if(NOT SPARSECORE_ZIG)
  message(FATAL_ERROR "wasm32-wasi: no zig found. Run `pip install ziglang`, or set SPARSECORE_ZIG to the executable.")
endif()

# A compiler may be a list: the program, then the arguments it always needs. An archiver may not, so its rules are here.
set(CMAKE_CXX_COMPILER ${SPARSECORE_ZIG} c++)
set(CMAKE_CXX_COMPILER_TARGET wasm32-wasi)
set(CMAKE_CXX_ARCHIVE_CREATE "${SPARSECORE_ZIG} ar qc <TARGET> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_APPEND "${SPARSECORE_ZIG} ar q <TARGET> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_FINISH "${SPARSECORE_ZIG} ranlib <TARGET>")
# A module with one SIMD instruction needs an engine that has them, so the portable files use them too.
set(CMAKE_CXX_FLAGS_INIT "-fno-exceptions -fno-rtti -msimd128")
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE NEVER)

find_program(SPARSECORE_NODE NAMES node NO_CMAKE_FIND_ROOT_PATH)
if(SPARSECORE_NODE)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${SPARSECORE_NODE} --no-warnings)
  if(SPARSECORE_WASM_RELAXED)
    list(APPEND CMAKE_CROSSCOMPILING_EMULATOR --experimental-wasm-relaxed-simd)
  endif()
  list(APPEND CMAKE_CROSSCOMPILING_EMULATOR ${CMAKE_CURRENT_LIST_DIR}/../../csrc/wasm/run_wasi.mjs)
endif()
