"""Pictures: grids, labelled comparisons, traces."""
