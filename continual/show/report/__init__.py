"""The report: one self-contained page for a run, or for several compared. Imports neither torch nor ray."""

from continual.show.report.write import write_report

__all__ = ["write_report"]
