"""Run the remaining trials with Ray Tune, so many at a time, and watch them from the sweep's driver."""

import contextlib
import json
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler

from continual.errors import ContinualError, describe
from continual.preflight.delivery import check_placement
from continual.preflight.nodes import Node
from continual.run.cluster import nodes
from continual.show.terminal import Terminal
from continual.sweep.halving import Halving, judge
from continual.sweep.results import judged_values
from continual.sweep.search import NotPickled, PointHalving, Queue, SeededOptuna
from continual.sweep.state import STOP
from continual.sweep.sweep import Sweep
from continual.sweep.trainable import run_trial
from continual.sweep.trials import Trial, check_concurrency, cpu_overrides, threads
from continual.training.launch import wait_for_checkpoint

POLL_SECONDS = 0.5
STOP_SECONDS = 90.0
"""How long the end of a sweep waits for Tune when its trials' drivers have ended."""


def _name(trial: Any) -> str:
    return str(trial.config["trial"]["name"])


@dataclass(eq=False)
class Watch(NotPickled, tune.Callback, tune.Stopper):
    """Prints a line for every stage and every end of a trial, and ends Tune's loop.

    `running` are the trials whose drivers run. Once the sweep is `stopping`, the loop ends when these have stopped in
    order; otherwise it would continue with the waiting ones.
    """

    sweep: Sweep
    terminal: Terminal
    halving: Halving | None = None
    running: set[str] = field(default_factory=set)
    stopping: bool = False
    ends: int = 0

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.stopping and not self.running

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if not self.stopping:
            self.running.add(_name(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        name = _name(trial)
        if "error" in result:
            self.sweep.failed[name] = result["error"]
            return
        made = self.sweep.trials.made[name]
        stage = made.loaded.sequence.stages[result["stage"] - 1].name
        shown = dict.fromkeys([*self.sweep.source.ablation.metric, "average_score"])
        numbers = ", ".join(f"{key} {result[key]:.3f}" for key in shown if isinstance(result.get(key), float))
        self.terminal.line(f"{made.title}: stage {result['stage']} {stage}{f': {numbers}' if numbers else ''}")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(_name(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        name, error = _name(trial), trial.get_error()
        if self.stopping and name not in self.sweep.failed:
            self.running.discard(name)
            return
        why = describe(error) if error else "it exited without an error message"
        self.sweep.failed.setdefault(name, why)
        self._end(name)

    def _end(self, name: str) -> None:
        self.running.discard(name)
        if self.halving and name in self.halving.waiting:
            self.terminal.line(f"{self.sweep.trials.made[name].title}: waits until all seeds of its point are as far")
            return
        self.ends += 1
        why, stopped = self.sweep.failed.get(name), self.sweep.state.stopped.get(name)
        end = f"failed: {why}" if why else str(stopped or "done")
        self.terminal.line(f"{self.sweep.trials.made[name].title}: {end} (trial {self.ends} of this start)")


def run_trials(sweep: Sweep, terminal: Terminal, run_id: str | None, resources: Mapping[str, float]) -> None:
    """Run the remaining trials to their end in a connected cluster with `resources`; their runs in the tracker are
    below `run_id`.

    On KeyboardInterrupt the running trials stop in order, then it is raised again. With `fail_fast` the first failure
    stops the others in the same way and raises ContinualError.
    """
    ablation = sweep.source.ablation
    cpus, gpus, there = resources.get("CPU", 0.0), resources.get("GPU", 0.0), nodes()
    sequences = [trial.loaded.sequence for trial in sweep.trials.made.values()]
    for sequence in sequences:
        check_placement(sequence, cpus, gpus)
    check_concurrency(sequences, ablation.concurrency, cpus, gpus)
    watch = Watch(sweep, terminal, _halving(sweep))
    tuner = _tuner(sweep, watch, lambda trial: _config(sweep, trial, cpus, there, run_id))
    errors: list[BaseException] = []
    ended = threading.Event()

    def fit() -> None:
        try:
            tuner.fit()
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    # Fit in a thread: in the main thread Tune would install a SIGINT handler that kills the trials.
    threading.Thread(target=fit, daemon=True).start()
    try:
        while not ended.wait(POLL_SECONDS) and not (ablation.fail_fast and sweep.failed):
            pass
    except KeyboardInterrupt:
        with contextlib.suppress(KeyboardInterrupt):
            _stop(watch, ended, "interrupted")
        raise
    if ablation.fail_fast and sweep.failed:
        _stop(watch, ended, "a trial failed")
        name, why = next(iter(sweep.failed.items()))
        raise ContinualError(f"the trial {name} failed: {why}")
    if errors:
        raise errors[0]
    shutil.rmtree(sweep.folder / "tune", ignore_errors=True)


def _stop(watch: Watch, ended: threading.Event, why: str) -> None:
    """Let the trials write their checkpoints, as long as they make progress, then wait for Tune: if its loop outlived
    the connection to the cluster, it would start a cluster of its own."""
    watch.stopping = True
    (watch.sweep.folder / STOP).touch()
    made = watch.sweep.trials.made
    folders = [made[name].loaded.run_folder / "stages" for name in sorted(watch.running) if name in made]
    with watch.terminal.step(
        f"{why}: stopping", f"{len(folders)} running trials finish their step, write a checkpoint"
    ):
        wait_for_checkpoint(folders, ended)
        ended.wait(STOP_SECONDS)


def _config(sweep: Sweep, trial: Trial, cpus: float, there: list[Node], run_id: str | None) -> dict[str, Any]:
    """Return what a trial's function gets: name, number of stages, and the request to its driver.

    The changes for the CPUs and the parent run hold for this start only.
    """
    ablation, sequence = sweep.source.ablation, trial.loaded.sequence
    changes = [*trial.set, *cpu_overrides(sequence, ablation.concurrency, cpus, there)]
    if ablation.concurrency > 1:  # what is free belongs to the others
        changes += ["generate.delivery=store"] * (sequence.generate.delivery == "auto")
        changes += ["evaluate.overlap=false"] * (sequence.evaluate.overlap == "auto")
        changes += ["evaluate.gpus=0"] * (sequence.evaluate.gpus is None)
    if run_id:
        tags = {**sequence.track.tags, "mlflow.parentRunId": run_id}
        changes.append(f"track.tags={json.dumps(tags)}")
    request = {
        "sequence": str(trial.loaded.path),
        "set": changes,
        "folder": str(sweep.source.folder),
    }
    return {"trial": {"name": trial.name, "stages": trial.stages, "request": request}}


def _halving(sweep: Sweep) -> Halving | None:
    """Return what decides which points go on; None if all do."""
    ablation = sweep.source.ablation
    if ablation.scheduler == "none":
        return None
    halving = Halving(
        ablation.reduction_factor,
        sweep.state,
        seeds=lambda trial: [each for each in sweep.trials.made.values() if each.point == trial.point],
        values=lambda trial: judged_values(trial, ablation.metric),
        judged_by=lambda trial, stage: judge(trial.loaded.sequence, ablation.metric, stage),
    )
    sweep.held = halving.waiting
    return halving


def _tuner(sweep: Sweep, watch: Watch, config: Callable[[Trial], dict[str, Any]]) -> tune.Tuner:
    # CSV, JSON and TensorBoard files of every trial would repeat what the runs have.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    shutil.rmtree(sweep.folder / "tune", ignore_errors=True)
    concurrency = sweep.source.ablation.concurrency
    context = ray.get_runtime_context()
    environment = {**os.environ, **threads(concurrency), "RAY_ADDRESS": context.gcs_address}
    function = tune.with_parameters(
        run_trial,
        environment=environment,
        cwd=str(Path.cwd()),
        stop=str(sweep.folder / STOP),
        given=sweep.source.overrides,  # not in the trial's configuration, which Tune writes to its files
    )
    # On this machine, where the paths of the request mean the same; no CPU, because its workers need the CPUs.
    here = next(n["NodeManagerAddress"] for n in ray.nodes() if n["NodeID"] == context.get_node_id())
    halving = watch.halving
    searcher = (
        SeededOptuna(sweep, config, watch.terminal.line, halving) if sweep.searches else Queue(sweep, config, halving)
    )
    return tune.Tuner(
        tune.with_resources(function, {"CPU": 0, f"node:{here}": 0.001}),
        param_space={},
        tune_config=tune.TuneConfig(
            # The searcher says itself when it has no more trials; this number must not end it before.
            num_samples=-1,
            max_concurrent_trials=concurrency,
            scheduler=PointHalving(halving, sweep.trials.made) if halving else FIFOScheduler(),
            search_alg=searcher,
            # A trial that waited for others is begun again, in a folder of its own.
            trial_dirname_creator=lambda trial: f"{_name(trial)}-{trial.trial_id}",
            trial_name_creator=_name,
        ),
        # A new name every time, so that Tune never resumes from its own state.
        run_config=tune.RunConfig(
            name=f"tune-{uuid.uuid4().hex[:8]}",
            storage_path=str(sweep.folder / "tune"),
            verbose=0,
            callbacks=[watch],
            stop=watch,
        ),
    )
