"""The small common module: what all scripts do in the same way and nobody adapts. Each file has one job."""
