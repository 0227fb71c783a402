"""Who interacted with what, and when: reading, selecting and splitting the interactions."""
