"""Sends requests at a chosen rate and reports latencies: `python -m serving.load_test`."""
