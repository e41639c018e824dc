"""Benchmarks: each module prints a table and writes one flat JSON of names and numbers."""
