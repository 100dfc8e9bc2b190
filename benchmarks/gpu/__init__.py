"""What a visit to a GPU does: ``python -m benchmarks.gpu.visit``; docs/gpu_visit.md says how."""
