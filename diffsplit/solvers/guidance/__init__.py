"""Guidance: a prior's walk, pulled towards the measurements at each level."""
