"""Benchmarks: one file a question, run from the checkout."""
