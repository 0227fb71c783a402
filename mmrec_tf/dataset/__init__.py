"""A dataset directory, opened: users, the catalog, histories, and batches to train on."""
