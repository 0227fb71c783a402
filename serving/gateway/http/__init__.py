"""The HTTP service: routes, keys, limits, metrics and logs."""
