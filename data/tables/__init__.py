"""CSV, TSV, JSON lines and Parquet, row by row, and what is read from their columns."""
