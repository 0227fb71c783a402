"""How models are trained: the contract of both stages, optimizer, callbacks and checkpoints."""
