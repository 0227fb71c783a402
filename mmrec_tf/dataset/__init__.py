"""A dataset directory, opened: the catalog, the users, their histories, and batches."""
