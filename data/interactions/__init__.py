"""Who met what, when: reading, selecting and splitting."""
