"""Benchmarks, each measured in the same run as its peers: ``python -m benchmarks --help``, or ``make bench``."""
