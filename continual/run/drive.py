"""Set up a run (log file, cluster, store, tracker) and always tear it down in order."""

import os
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from continual.config.load import Loaded
from continual.errors import as_one_sentence, describe
from continual.errors.process import uninterrupted
from continual.errors.syntax import ALONE
from continual.evaluation.service import evaluators_of
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import Ledger
from continual.models.imports import whole_transformers
from continual.preflight.delivery import check_placement, placed_on, scores_beside, workers_stay
from continual.preflight.nodes import room_beside
from continual.preflight.placement import placed
from continual.preflight.plan import evaluators_in_words, make_plan
from continual.preflight.render import render
from continual.run.cluster import connected, nodes
from continual.run.events import Status, ended
from continual.run.guard import Guard
from continual.run.resume import FLUSH_SECONDS, tracker_of, tracking_uri
from continual.run.sequence import Run, cores, run_sequence
from continual.show.tables import closing
from continual.show.terminal import Terminal
from continual.show.tracking import Tracker
from continual.store import Store
from continual.training.launch import Workers

RESERVE_BYTES = 1 << 22
"""Room for the last lines of the ledger and of the tracker's SQLite file."""


@contextmanager
def tracked(loaded: Loaded, folder: RunFolder, ledger: Ledger, terminal: Terminal) -> Iterator[Tracker]:
    """Track a run whose end is always recorded: FINISHED, FAILED or KILLED."""
    tracker = tracker_of(loaded)
    status: Status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        with uninterrupted():
            _close(tracker, status, loaded, folder, ledger, terminal)


def _close(
    tracker: Tracker, status: Status, loaded: Loaded, folder: RunFolder, ledger: Ledger, terminal: Terminal
) -> None:
    """Record how the run ended, here and in the tracker; a full disk must not hide why."""
    try:
        ledger.add("ended", **ended(status, ledger.open_stages(), folder))
    except OSError as error:
        terminal.line(f"  the end of the run could not be recorded: {describe(error)}")
    finally:
        if waiting := _flush(tracker, terminal):
            terminal.line(f"  {waiting} records wait for the tracker {tracking_uri(loaded)}; the next run sends them")


@contextmanager
def reserved(path: Path) -> Iterator[None]:
    """Keep room on the disk inside the block, so that on a full one the end of the run can still be recorded."""
    try:
        with suppress(OSError), path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        yield
    finally:
        path.unlink(missing_ok=True)


def _flush(tracker: Tracker, terminal: Terminal) -> int:
    """Send what waits for the tracker; return how many records still wait."""
    if not tracker.enabled:
        return 0
    with terminal.step("tracker", "sending the last records") as step:
        waiting = tracker.close(FLUSH_SECONDS)
        step.note("all records are sent" if not waiting else f"{waiting} records not sent")
    return waiting


def add_report(run: Run) -> None:
    """Write `report.html` into the run's folder. A failure is reported but does not fail the run."""
    try:
        from continual.show.report import write_report
        from continual.show.report.samples import make_in_cluster

        with run.terminal.step("report", "scoring samples and drawing") as step:
            gpus = run.sequence.generate.gpus_per_replica
            make = partial(make_in_cluster, gpus, None if gpus else run.evaluators.idle())
            step.note(str(write_report([run.folder.path], make=make)))
    except Exception as error:
        traceback.print_exc()
        again = f"python -m continual.report {run.folder.path}"
        run.terminal.line(f"  the run is done, but its report failed: {describe(error)}; try again: {again}")


def _import() -> None:
    """Import what the run needs from transformers, and torch with it: it takes as long as Ray's processes to start."""
    with suppress(Exception), ALONE:  # who needs it says what is wrong
        _ = whole_transformers().AutoConfig, whole_transformers().AutoTokenizer


def drive(
    loaded: Loaded, folder: Path, ledger: Ledger, notes: list[str], after_stage: Callable[[int], None]
) -> dict[str, Any]:
    """Run the sequence; return its summary. Raises ContinualError, or KeyboardInterrupt after an orderly stop.

    `after_stage(stage)` is called after every stage.
    """
    sequence, files = loaded.sequence, RunFolder(folder)
    store = Store(Path(sequence.storage) / "store", maker=ledger.run_id())
    uri = tracking_uri(loaded) if sequence.track.enabled else ""
    with Guard(files.log, folder, uri) as guard, Terminal(files.log) as terminal, terminal.last_word():
        terminal.line(render(make_plan(loaded, held=True)))
        for note in notes:
            terminal.line(f"note: {note}")
        terminal.line(f"log: {files.log}")
        threading.Thread(target=_import, name="imports", daemon=True).start()
        tracking, room = tracked(loaded, files, ledger, terminal), reserved(files.reserve)
        with as_one_sentence(loaded.file, sequence.storage), connected(guard) as resources, tracking as tracker, room:
            cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
            there, why = placed(sequence, cpus, gpus)
            check_placement(there, cpus, gpus)
            machines = nodes()
            delivery, because, share = placed_on(there, machines, cpus, gpus)
            overlap = scores_beside(there, delivery, cpus, gpus)
            if os.environ.get("RAY_ADDRESS"):  # else the plan has said so
                terminal.line(f"delivery of samples: {delivery} ({because})")
                terminal.line(f"scoring beside the next stage: {'yes' if overlap.beside else 'no'} ({overlap.why})")
                if why:
                    terminal.line(f"evaluation: {evaluators_in_words(there.evaluate, why)}")
            stays = workers_stay(there, delivery, cpus or 1.0, gpus) and room_beside(there, machines, share)
            run = Run(
                sequence, str(loaded.path), files, store, ledger, terminal, tracker,
                workers=Workers(files.ray, share),
                workers_stay=stays,
                scores_beside=overlap.beside,
                delivery=delivery, evaluators=evaluators_of(there, cores()), after_stage=after_stage,
            )  # fmt: skip
            with run.workers:
                summary = run_sequence(run)
                run.workers.finish()
                add_report(run)  # while the workers end
        # Everything is done only here: after a kill or Ctrl-C before this line, MLflow's runs must still be closed.
        ledger.find("closed") or ledger.add("closed")
        terminal.line(closing(summary, folder, terminal.colors))
    return summary
