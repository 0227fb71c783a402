"""What another policy would have earned, and whether one arm is better, from the log alone."""
