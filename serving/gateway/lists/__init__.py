"""From what is known of a user to a list: asked for, merged, explored, and replaced in need."""
