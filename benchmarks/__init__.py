"""Benchmarks: each script is run as `python -m benchmarks.NAME` and writes rows into `benchmarks/results/`."""
