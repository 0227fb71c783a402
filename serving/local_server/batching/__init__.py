"""Puts requests that come together into one run of the model."""
