"""Evidence for the numbers: ``python -m evidence --help``, and docs/evidence.md."""
