"""The harnesses run alone: they need atheris, and instrument what they import."""

collect_ignore = ["fuzz_requests.py", "fuzz_responses.py"]
