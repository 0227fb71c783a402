"""Finds models and their versions, loads them, and swaps them as new ones appear."""
