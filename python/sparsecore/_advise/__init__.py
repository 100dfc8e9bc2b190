"""The parts of :func:`sparsecore.advise`: values, timings, costs, the knapsack."""
