"""Tests; a package so that `python -m tests.benchmarks.step` works."""
