"""Pictures and tables: grids, labelled comparisons, uncertainty maps, curves."""

from diffsplit.plots.grids import comparison, image_grid, side_by_side
from diffsplit.plots.maps import measurement_pictures, std_figure, std_map, stretch
from diffsplit.plots.signals import signal_figure
from diffsplit.plots.traces import markdown_table, trace_figure

__all__ = [
    "comparison",
    "image_grid",
    "markdown_table",
    "measurement_pictures",
    "side_by_side",
    "signal_figure",
    "std_figure",
    "std_map",
    "stretch",
    "trace_figure",
]
