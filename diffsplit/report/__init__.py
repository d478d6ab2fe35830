"""From the results of a run to tables, figures and one page."""

from diffsplit.report.source import Facts, Results
from diffsplit.report.summary import Cell, Statistic, Summary
from diffsplit.report.write import FORMATS, write_report

__all__ = ["FORMATS", "Cell", "Facts", "Results", "Statistic", "Summary", "write_report"]
