"""Evidence that the numbers are what they are said to be: ``python -m evidence --help``, and docs/evidence.md."""
