"""The atlas floor: one reduced matrix of all samples, its clusters, its map and its cell classes."""
