"""Ray Tune: the trials that are left, so many at a time, and what is seen of them on the driver."""

import contextlib
import os
import shutil
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune

from continual.errors import ContinualError, describe, unwrap
from continual.sweep.local import Local
from continual.sweep.state import STOP
from continual.sweep.trainable import run_trial
from continual.sweep.trials import Trial

POLL_SECONDS = 0.5
STOP_SECONDS = 90.0
"""How long Ctrl-C waits for the trials' drivers to put down their checkpoints, and for Tune."""
NODE_SHARE = 0.001


@dataclass(eq=False)
class Watch(Local, tune.Callback):
    """What trials report, as it comes. `running` are those whose drivers run, `failed` holds reasons by name."""

    reported: Callable[[str, dict[str, Any]], None]
    ended: Callable[[str, str | None], None]
    running: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    stopping: bool = False

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if not self.stopping:
            self.running.add(_name(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "error" in result:
            self.failed[_name(trial)] = result["error"]
        else:
            self.reported(_name(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self.stopping and _name(trial) not in self.failed:
            self.running.discard(_name(trial))
            return
        if _name(trial) not in self.failed:
            error = trial.get_error()
            self.failed[_name(trial)] = describe(unwrap(error)) if error else "it ended without a word"
        self._end(trial, self.failed[_name(trial)])

    def _end(self, trial: Any, why: str | None) -> None:
        self.running.discard(_name(trial))
        self.ended(_name(trial), why)


@dataclass(eq=False)
class Halt(Local, tune.Stopper):
    """Ends Tune's own loop when the trials that ran have stopped in order; it would go on with those that wait."""

    watch: Watch

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.watch.stopping and not self.watch.running


def _name(trial: Any) -> str:
    return str(trial.config["trial"]["name"])


def trial_config(trial: Trial, set_here: list[str], halve: bool) -> dict[str, Any]:
    """What a trial's function gets: its name and the request to its driver. `set_here` are overrides of this start."""
    request = {
        "sequence": str(trial.loaded.path),
        "given": trial.given,
        "set": [*trial.set, *set_here],
        "folder": str(trial.folder),
        "halve": halve,
    }
    return {"trial": {"name": trial.name, "stages": trial.stages, "request": request}}


def run_trials(
    folder: Path,
    trials: list[dict[str, Any]] | None,
    concurrency: int,
    scheduler: Any,
    searcher: Any,
    watch: Watch,
    fail_fast: bool,
    environment: dict[str, str],
) -> None:
    """Run trials (a list of configurations, or what the searcher suggests) on the connected cluster, to their end.

    On KeyboardInterrupt the running trials stop in order before it goes on to the caller. With `fail_fast` the first
    failure ends the others in the same way and raises ContinualError.
    """
    tuner = _tuner(folder, trials, concurrency, scheduler, searcher, watch, environment)
    error: list[BaseException] = []
    ended = threading.Event()

    def fit() -> None:
        try:
            tuner.fit()
        except BaseException as found:
            error.append(found)
        finally:
            ended.set()

    # In a thread of its own: in the main thread Tune installs a SIGINT handler that kills the trials.
    threading.Thread(target=fit, daemon=True).start()
    try:
        while not ended.wait(POLL_SECONDS):
            if fail_fast and watch.failed:
                break
    except KeyboardInterrupt:
        with contextlib.suppress(KeyboardInterrupt):
            _stop(folder, watch, ended)
        raise
    if fail_fast and watch.failed:
        _stop(folder, watch, ended)
        name, why = next(iter(watch.failed.items()))
        raise ContinualError(f"the trial {name} failed: {why}")
    if error:
        raise error[0]
    shutil.rmtree(folder / "tune", ignore_errors=True)


def _stop(folder: Path, watch: Watch, ended: threading.Event) -> None:
    """Trials put down their checkpoints, then Tune ends: a loop that outlived the connection would open a new one."""
    watch.stopping = True
    (folder / STOP).touch()
    ended.wait(STOP_SECONDS)


def _tuner(
    folder: Path,
    trials: list[dict[str, Any]] | None,
    concurrency: int,
    scheduler: Any,
    searcher: Any,
    watch: Watch,
    environment: dict[str, str],
) -> tune.Tuner:
    # CSV, JSON and TensorBoard files of every trial would repeat what the runs have.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    shutil.rmtree(folder / "tune", ignore_errors=True)
    address = ray.get_runtime_context().gcs_address
    function = tune.with_parameters(
        run_trial, environment={**os.environ, **environment, "RAY_ADDRESS": address}, cwd=str(Path.cwd()),
        stop=str(folder / STOP),
    )  # fmt: skip
    # On this machine, where the paths of the request mean the same; no CPU, which their workers need.
    here = ray.get_runtime_context().get_node_id()
    address_here = next(node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] == here)
    resources = {"CPU": 0, f"node:{address_here}": NODE_SHARE}
    space = {"trial": tune.grid_search([one["trial"] for one in trials])} if trials is not None else {}
    return tune.Tuner(
        tune.with_resources(function, resources),
        param_space=space,
        tune_config=tune.TuneConfig(
            # A searcher says itself when it has no more; the number only must not end it before.
            num_samples=1 if searcher is None else -1,
            max_concurrent_trials=concurrency,
            scheduler=scheduler,
            search_alg=searcher,
            trial_dirname_creator=_name,
            trial_name_creator=_name,
        ),
        # A new name every time: Tune's own state is not what a sweep goes on from.
        run_config=tune.RunConfig(
            name=f"tune-{uuid.uuid4().hex[:8]}",
            storage_path=str(folder / "tune"),
            verbose=0,
            callbacks=[watch],
            stop=Halt(watch),
        ),
    )
