"""Models that were trained where no remote of ours is."""
