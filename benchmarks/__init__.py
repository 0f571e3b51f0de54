"""Benchmarks: `make bench` runs them all and writes docs/benchmarks.md; `python -m benchmarks NAME` runs one."""
