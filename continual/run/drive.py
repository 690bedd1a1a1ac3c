"""Put a run together: log file, cluster, store, tracker; and take it apart in order whatever happens."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from continual.config.load import Loaded
from continual.errors import as_one_sentence, describe
from continual.ledger.ledger import Ledger
from continual.preflight.plan import make_plan
from continual.preflight.render import render
from continual.preflight.resources import check_resources
from continual.run.cluster import connected
from continual.run.resume import FLUSH_SECONDS, tracker_of, tracking_uri
from continual.run.sequence import Run, run_sequence
from continual.show.tables import closing
from continual.show.terminal import Terminal
from continual.show.tracking.publisher import Publisher, Status
from continual.store import Store


@contextmanager
def published(
    loaded: Loaded, folder: Path, ledger: Ledger, terminal: Terminal
) -> Iterator[tuple[Publisher, list[Any]]]:
    """A publisher whose runs never stay open: FINISHED, FAILED or KILLED, as the block ends.

    The block puts the summary into the list that it gets.
    """
    sequence = loaded.sequence
    tracker = tracker_of(loaded)
    publisher = Publisher(tracker, sequence, folder, loaded.resolved)
    summaries: list[Any] = []
    status: Status = "FAILED"
    try:
        yield publisher, summaries
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        open_stages = {e["stage"] for e in ledger.all("prepared")} - {e["stage"] for e in ledger.all("stage_done")}
        publisher.end(summaries[0] if summaries and status == "FINISHED" else None, status, sorted(open_stages))
        waiting = tracker.close(FLUSH_SECONDS)
        if waiting:
            terminal.line(f"  {waiting} records wait for the tracker {tracking_uri(loaded)}; the next run sends them")


def report(run: Run) -> None:
    """`report.html` in the run's folder. What goes wrong with it is said, and fails no run."""
    try:
        from continual.show.report import write_report
        from continual.show.report.samples import make_in_cluster

        with run.terminal.step("report") as step:
            step.note(str(write_report([run.folder], make=make_in_cluster(run.sequence.generate.gpus_per_replica))))
    except Exception as error:
        traceback.print_exc()
        again = f"python -m continual.report {run.folder}"
        run.terminal.line(f"  the run is done, its report failed: {describe(error)}; try again: {again}")


def drive(
    loaded: Loaded, folder: Path, ledger: Ledger, notes: list[str], after_stage: Callable[[int], None]
) -> dict[str, Any]:
    """Run the sequence; returns its summary. Raises ContinualError, or KeyboardInterrupt after an orderly stop.

    `after_stage(stage)` is called after every stage.
    """
    sequence = loaded.sequence
    store = Store(Path(sequence.storage) / "store", maker=ledger.run_id())
    with Terminal(folder / "log.txt") as terminal:
        terminal.line(render(make_plan(loaded)))
        for note in notes:
            terminal.line(f"note: {note}")
        terminal.line(f"log: {folder / 'log.txt'}")
        with (
            as_one_sentence(loaded.file),
            connected() as resources,
            published(loaded, folder, ledger, terminal) as (publisher, summaries),
        ):
            check_resources(sequence, resources.get("CPU", 0.0), resources.get("GPU", 0.0))
            run = Run(sequence, folder, store, ledger, terminal, publisher, resources.get("CPU", 1.0), after_stage)
            summary = run_sequence(run)
            report(run)
            publisher.tracker.wait_for("sequence", 10.0)
            summaries.append(summary)
        # Only now is nothing left to do: a kill before this line, or Ctrl-C, leaves the runs of MLflow to be closed.
        ledger.find("closed") or ledger.add("closed")
        terminal.line(closing(summary, folder, terminal.colors))
    return summary
