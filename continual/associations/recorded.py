"""A forecast in the report of the run that it was measured with, and in the tracker; the run itself has ended."""

from continual.config.load import Loaded
from continual.errors import describe
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import Ledger
from continual.run.events import add_results
from continual.run.resume import FLUSH_SECONDS, tracker_of, tracking_uri
from continual.show.report import write_report
from continual.store.json_files import has, read_json

STAGE = 1
"""The step of the numbers in the tracker, as that of the scores after the task."""


def record(loaded: Loaded) -> list[str]:
    """Write the report of a finished run anew, and let the tracker have its forecast, each once.

    Returns lines about what failed. A tracker that is down gets what waits for it at the next start.
    """
    files, lines = RunFolder(loaded.run_folder), list[str]()
    numbers = read_json(files.forecast, "give the command of the forecast again", has(mean=float, interval=list))
    try:
        write_report([files.path], files.report)
    except Exception as error:  # the forecast is there, and a page can be written later
        again = f"python -m continual.report {files.path}"
        lines.append(f"  the forecast is done, but its report failed: {describe(error)}; try again: {again}")
    lower, upper = numbers["interval"]
    found = {"mean": numbers["mean"], "lower": lower, "upper": upper, "measured_mean": numbers["measured_mean"]}
    metrics = {f"forecast/{name}": value for name, value in found.items()}
    kept = [path.name for path in (files.forecast, files.forecast_table, files.report) if path.is_file()]
    with Ledger(files.path) as ledger:
        add_results(ledger, STAGE, metrics, kept)
        if waiting := tracker_of(loaded).close(FLUSH_SECONDS):
            lines.append(f"  {waiting} records wait for the tracker {tracking_uri(loaded)}; the next start sends them")
    return lines
