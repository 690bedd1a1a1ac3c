"""Run or resume a sweep and write its table. The sweep's driver holds no model and runs no sequence itself."""

from dataclasses import replace

from continual.config.load import Loaded
from continual.errors import ContinualError, as_one_sentence, redacted
from continual.run.events import Status
from continual.run.guard import Guard
from continual.run.resume import catch_up, claim, tracking_uri
from continual.show.terminal import Terminal
from continual.store.places import remove
from continual.sweep.outputs import COMPARISON, Results, Written
from continual.sweep.parent_run import Parent, close_run
from continual.sweep.state import State, lock_sweep
from continual.sweep.sweep import Sweep, plan_text
from continual.sweep.trials import refuse_changed


def run_sweep(sweep: Sweep, fresh: bool, results: Results = COMPARISON) -> None:
    """Run what is missing and write the results, even if the sweep is interrupted.

    Raises ContinualError if a trial failed, KeyboardInterrupt after an orderly stop.
    """
    with lock_sweep(sweep.folder):
        if fresh:
            _forget(sweep)
        refuse_changed(sweep.listed())
        if sweep.finished() and sweep.state.closed and not results.lacks(sweep.outcomes()):
            for each in sweep.outcomes():
                if each.state == "done":
                    catch_up(each.trial.loaded, each.summary)
            written = results.write(sweep.folder, sweep.source, sweep.outcomes())
            print(redacted(written.text + _add(sweep, results, written)))
            return
        log = sweep.folder / "log.txt"
        tracked = next(iter(sweep.trials.made.values())).loaded
        uri = tracking_uri(tracked) if tracked.sequence.track.enabled else ""
        with Guard(log, sweep.folder, uri) as guard, Terminal(log) as terminal, terminal.last_word():
            terminal.line(plan_text(sweep))
            terminal.line(f"log: {sweep.folder / 'log.txt'}; every trial has its own in its run folder\n")
            with as_one_sentence(sweep.source.file):
                _run(sweep, results, terminal, guard)
    if count := len(sweep.failed):
        failed = f"{count} trial{'s' * (count > 1)} of {len(sweep.listed())} failed"
        raise ContinualError(f"{failed} (see the table); run the same command again to retry what failed")


def _forget(sweep: Sweep) -> None:
    """Delete the trials' runs and the sweep's state; the store stays."""
    for trial in sweep.listed():
        if trial.loaded.run_folder.is_dir():
            with claim(trial.loaded.run_folder, trial.loaded, fresh=True):
                pass
    for path in sweep.folder.iterdir():
        if path.name != "lock":
            remove(path)
    sweep.state = State.load(sweep.folder, sweep.source.ablation)


def _run(sweep: Sweep, results: Results, terminal: Terminal, guard: Guard) -> None:
    """Run the remaining trials inside the sweep's own run in the tracker; write the results whatever happens."""
    example = next(iter(sweep.trials.made.values())).loaded
    parent = Parent(sweep.folder, sweep.source, example)
    sweep.state.close(False)
    status: Status = "FAILED"
    try:
        with terminal.step("tracker", "waiting for its answer") as step:
            run_id = parent.begin()
            step.note("the trials are below the sweep's run" if run_id else "no answer, or off")
        try:
            _run_what_is_missing(sweep, results, terminal, run_id, guard)
        finally:
            _close_stopped(sweep)
        status = "FAILED" if sweep.failed else "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        outcomes = sweep.outcomes()
        done, written = sum(each.state == "done" for each in outcomes), Written("")
        try:
            written = results.write(sweep.folder, sweep.source, outcomes)
            if done:
                terminal.line(f"\n{written.text}\n\n  all files: {sweep.folder}")
        except BaseException:
            status = "FAILED"
            raise
        finally:
            unsent = parent.end(status, written, done, results.files)
            sweep.state.close(status == "FINISHED" and not unsent)
            if unsent:
                terminal.line(_waiting(unsent, example))


def _add(sweep: Sweep, results: Results, written: Written) -> str:
    """Let the tracker have what was found of finished trials; return a line about what waits for it, "" if all is sent.

    Earlier versions did not record it, and other options may find something else.
    """
    if not written.metrics:
        return ""
    example = next(iter(sweep.trials.made.values())).loaded
    done = sum(each.state == "done" for each in sweep.outcomes())
    unsent = Parent(sweep.folder, sweep.source, example).add(written, done, results.files)
    if not unsent:
        return ""
    sweep.state.close(False)
    return f"\n{_waiting(unsent, example)}"


def _waiting(unsent: int, example: Loaded) -> str:
    return f"  {unsent} records wait for {tracking_uri(example)}; the next start sends them"


def _run_what_is_missing(sweep: Sweep, results: Results, terminal: Terminal, run_id: str | None, guard: Guard) -> None:
    """Run the remaining trials, and measure what the results lack beside them, in one cluster; none for nothing."""
    if sweep.finished() and not results.lacks(sweep.outcomes()):
        return
    from continual.run.cluster import connected

    with connected(guard) as resources:
        if not sweep.finished():
            from continual.sweep.runner import run_trials

            run_trials(sweep, terminal, run_id, resources)
        if results.lacks(outcomes := sweep.outcomes()):
            results.measure(outcomes, resources, terminal)


def _close_stopped(sweep: Sweep) -> None:
    """Close the tracker's runs of stopped trials, also those that a killed start left open, and of held ones."""
    for trial in sweep.held.values():
        close_run(trial, None)
    for each in sweep.outcomes():
        why = sweep.state.stopped.get(each.trial.name)
        if each.state == "stopped" and why and not why.closed:
            close_run(each.trial, why)
            sweep.state.stop(each.trial.name, replace(why, closed=True))
