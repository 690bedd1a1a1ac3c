"""Run the remaining trials with Ray Tune, so many at a time, and watch them from the sweep's driver."""

import contextlib
import os
import shutil
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import ray
from ray import tune

from continual.errors import ContinualError, describe, unwrap
from continual.sweep.state import STOP
from continual.sweep.trainable import run_trial
from continual.sweep.trials import Trial

POLL_SECONDS = 0.5
STOP_SECONDS = 90.0
"""How long Ctrl-C waits for the trials' drivers to write their checkpoints, and for Tune to end."""
NODE_FRACTION = 0.001


class NotPickled:
    """A scheduler, searcher, stopper or callback that stays in the sweep's driver.

    Tune pickles them to be able to resume; that is a no-op here, because a sweep resumes from its own state.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


@dataclass(eq=False)
class Watch(NotPickled, tune.Callback):
    """Passes on what trials report; `running` are those whose drivers run, `failed` has the reasons by name."""

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
        name = _name(trial)
        if name not in self.failed:
            if self.stopping:
                self.running.discard(name)
                return
            error = trial.get_error()
            self.failed[name] = describe(unwrap(error)) if error else "it exited without an error message"
        self._end(trial, self.failed[name])

    def _end(self, trial: Any, why: str | None) -> None:
        self.running.discard(_name(trial))
        self.ended(_name(trial), why)


@dataclass(eq=False)
class Halt(NotPickled, tune.Stopper):
    """Ends Tune's loop when the running trials have stopped in order; it would continue with the waiting ones."""

    watch: Watch

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.watch.stopping and not self.watch.running


def _name(trial: Any) -> str:
    return str(trial.config["trial"]["name"])


def trial_config(trial: Trial, start_overrides: list[str], halve: bool) -> dict[str, Any]:
    """Return what a trial's function gets: name, number of stages, and the request to its driver.

    `start_overrides` hold for this start only.
    """
    request = {
        "sequence": str(trial.loaded.path),
        "given": trial.given,
        "set": [*trial.set, *start_overrides],
        "folder": str(trial.folder),
        "halve": halve,
    }
    return {"trial": {"name": trial.name, "stages": trial.stages, "request": request}}


@dataclass
class Runner:
    """Runs trials on the connected cluster: those whose configurations are in `trials`, or else the searcher's.

    `environment` is added to that of the trials' drivers.
    """

    folder: Path
    watch: Watch
    scheduler: Any
    searcher: Any
    trials: list[dict[str, Any]]
    concurrency: int
    environment: dict[str, str]

    def run(self, fail_fast: bool) -> None:
        """Run the trials to their end.

        On KeyboardInterrupt the running trials stop in order, then it is raised again. With `fail_fast` the first
        failure stops the others in the same way and raises ContinualError.
        """
        tuner = self._tuner()
        errors: list[BaseException] = []
        ended = threading.Event()

        def fit() -> None:
            try:
                tuner.fit()
            except BaseException as error:
                errors.append(error)
            finally:
                ended.set()

        # In a thread of its own: in the main thread Tune installs a SIGINT handler that kills the trials.
        threading.Thread(target=fit, daemon=True).start()
        try:
            while not ended.wait(POLL_SECONDS):
                if fail_fast and self.watch.failed:
                    break
        except KeyboardInterrupt:
            with contextlib.suppress(KeyboardInterrupt):
                self._stop(ended)
            raise
        if fail_fast and self.watch.failed:
            self._stop(ended)
            name, why = next(iter(self.watch.failed.items()))
            raise ContinualError(f"the trial {name} failed: {why}")
        if errors:
            raise errors[0]
        shutil.rmtree(self.folder / "tune", ignore_errors=True)

    def _stop(self, ended: threading.Event) -> None:
        """Let the trials write their checkpoints, then wait for Tune: if its loop outlived the connection to the
        cluster, it would start a cluster of its own."""
        self.watch.stopping = True
        (self.folder / STOP).touch()
        ended.wait(STOP_SECONDS)

    def _tuner(self) -> tune.Tuner:
        # CSV, JSON and TensorBoard files of every trial would repeat what the runs have.
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
        shutil.rmtree(self.folder / "tune", ignore_errors=True)
        context = ray.get_runtime_context()
        environment = {**os.environ, **self.environment, "RAY_ADDRESS": context.gcs_address}
        function = tune.with_parameters(
            run_trial, environment=environment, cwd=str(Path.cwd()), stop=str(self.folder / STOP)
        )
        # On this machine, where the paths of the request mean the same; no CPU, because its workers need the CPUs.
        here = next(n["NodeManagerAddress"] for n in ray.nodes() if n["NodeID"] == context.get_node_id())
        return tune.Tuner(
            tune.with_resources(function, {"CPU": 0, f"node:{here}": NODE_FRACTION}),
            param_space={} if self.searcher else {"trial": tune.grid_search([each["trial"] for each in self.trials])},
            tune_config=tune.TuneConfig(
                # A searcher says itself when it has no more points; this number must not end it before.
                num_samples=-1 if self.searcher else 1,
                max_concurrent_trials=self.concurrency,
                scheduler=self.scheduler,
                search_alg=self.searcher,
                trial_dirname_creator=_name,
                trial_name_creator=_name,
            ),
            # A new name every time, so that Tune never resumes from its own state.
            run_config=tune.RunConfig(
                name=f"tune-{uuid.uuid4().hex[:8]}",
                storage_path=str(self.folder / "tune"),
                verbose=0,
                callbacks=[self.watch],
                stop=Halt(self.watch),
            ),
        )
