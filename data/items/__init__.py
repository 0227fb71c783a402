"""The catalog: raw files and rows to shards of items."""
