"""Picture encoders, one file a family."""
