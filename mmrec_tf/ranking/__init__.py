"""The second stage: orders the few candidates that retrieval found."""
