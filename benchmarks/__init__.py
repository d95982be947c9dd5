"""Benchmarks: a folder a command, `python -m benchmarks.NAME`, which writes rows into `benchmarks/results/`."""
