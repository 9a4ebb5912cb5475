"""Benchmarks, each with a ratio to a floor measured in the same run. `make bench` runs them."""
