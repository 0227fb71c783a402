"""Replays an export's examples against a running server: `python -m serving.check EXPORT`."""
