"""Tables (CSV, TSV, JSON lines, Parquet) read row by row, and what their columns hold."""
