// Own threads for the benchmarks, installed as the kernels' ParallelHost.
#pragma once

namespace bench {

// Later kernel calls use so many threads, the calling one included. Call between kernels only.
void use_threads(int threads);

// The processors this process may run on.
int available_threads();

}  // namespace bench
