"""Both stages as one graph: retrieve, leave out, rank, diversify, explain."""
