"""Requests at a rate, and what came back: `python -m serving.load_test EXPORT`."""
