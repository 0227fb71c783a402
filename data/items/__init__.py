"""The catalog: raw files and rows of tables, made into shards of items."""
