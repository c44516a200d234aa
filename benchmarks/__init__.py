"""Measurements, each beside its peers' in the same run: ``python -m benchmarks --help``, or ``make bench``."""
