"""Helpers for tests and benchmarks: what they need of the outside world, started and ended by them."""
