// doctest's runner can write its report into a file. The C++ library of the WebAssembly toolchain declares file streams
// but does not compile them, so the test executable brings the one class that is missing.
#include <fstream>

template class std::basic_filebuf<char>;
