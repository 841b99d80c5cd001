"""Benchmarks, one package per subject; `python -m benchmarks.engine` runs one of them."""
