"""Measurements: ``python -m benchmarks`` (or ``make bench``) prints a table and writes out/benchmarks.json."""
