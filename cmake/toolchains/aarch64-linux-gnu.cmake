# 64-bit ARM Linux from any other machine; tests run under user-mode emulation.
# Debian and Ubuntu: apt-get install g++-aarch64-linux-gnu qemu-user-static
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
find_program(SPARSECORE_QEMU NAMES qemu-aarch64-static qemu-aarch64)
if(SPARSECORE_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${SPARSECORE_QEMU} -L /usr/aarch64-linux-gnu)
endif()
