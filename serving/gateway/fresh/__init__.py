"""Items that were put after the model was trained: embedded, scored, and in time published."""
