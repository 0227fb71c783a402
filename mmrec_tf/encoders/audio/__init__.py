"""Sound encoders, one file a family."""
