"""A sweep before it starts and after it ends: its YAML, points, names, plan, halving, statistics, table."""

import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from continual.config.load import load_sequence
from continual.errors import ConfigurationError, ContinualError
from continual.sweep import sweep as at_work
from continual.sweep.plan import make_sweep_plan, render_sweep
from continual.sweep.rehearsal import rehearse
from continual.sweep.resources import LEAST_CPUS, check_concurrency, shares
from continual.sweep.results import Outcome, history, mean_score, outcome, point_results, values_of
from continual.sweep.schema import Ablation, LoadedAblation, load_ablation
from continual.sweep.space import corner_points, drawn_points, grid_points, overrides, short_keys, trial_name
from continual.sweep.state import State, Stopped, claimed
from continual.sweep.statistics import mean_error, pareto_front
from continual.sweep.sweep import prepare
from continual.sweep.trials import Trial, Trials, make_trials
from continual.sweep.write import best_yaml, table, write_results
from tests.kits.project import sequence, write_project

TASKS = {"texts": [{"name": name, "data": {"type": "jsonl", "path": "qa.jsonl", "text": "question"}} for name in "ab"]}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    base = sequence(evaluate=TASKS)
    for stage, task in zip(base["stages"], "ab", strict=True):
        stage["tasks"] = [task]
    (tmp_path / "seq.yaml").write_text(yaml.safe_dump(base))
    return tmp_path


def write(folder: Path, **changes: Any) -> Path:
    """A sweep over temperature and loss under two seeds; `changes` replace top-level keys."""
    space = {"mitigation.0.temperature": {"choice": [0.7, 1.0]}, "mitigation.0.loss": {"grid": ["nll", "kl"]}}
    found = {"name": "ab", "sequence": "seq.yaml", "space": space, "seeds": [0, 1], **changes}
    path = folder / "ablation.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in found.items() if v is not None}, sort_keys=False))
    return path


def load(folder: Path, *arguments: str, **changes: Any) -> LoadedAblation:
    return load_ablation(write(folder, **changes), arguments)


# The YAML


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"sedes": [0]}, "sedes", "did you mean `seeds`"),
        ({"space": {"train.learning_rate": {"chioce": [1.0]}}}, "space.train.learning_rate.chioce", "`choice`"),
        ({"space": {"train.learning_rate": {}}}, "space.train.learning_rate", "nothing is given"),
        ({"space": {"seed": {"choice": [1]}}}, "space", "list the seeds under `seeds`"),
        ({"space": {"train.learning_rate": {"uniform": [2, 1]}}}, "space.train.learning_rate", "lower number first"),
        (
            {"space": {"train.learning_rate": {"loguniform": [0, 1]}}, "search": "random", "trials": 2},
            "space.train.learning_rate", "no logarithm",
        ),
        ({"space": {"train.learning_rate": {"uniform": [1, 2]}}}, "", "search: random"),
        ({"search": "random"}, "", "trials: n"),
        ({"trials": 3}, "", "leave `trials` out"),
        ({"search": "optuna", "trials": 3}, "", "write `choice` instead of `grid`"),
        ({"seeds": [1, 1]}, "seeds", "once"),
        ({"seeds": [-1]}, "seeds.0", "at least 0"),
        ({"metric": ["forgetting", "a", "b"]}, "metric", ""),
        ({"metric": ["a", "a"]}, "", "stands twice"),
        ({"scheduler": "ahsa"}, "scheduler", "did you mean `asha`"),
        ({"concurrency": 0}, "concurrency", "at least 1"),
        ({"sequence": None}, "sequence", "missing"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_key_and_fix(project: Path, changes: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        load(project, **changes)
    assert error.value.key == key
    assert words in str(error.value)
    assert str(project / "ablation.yaml") in str(error.value)


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"space": {"mitigation.0.temprature": {"choice": [1.0]}}}, "space.mitigation.0.temprature", "`temperature`"),
        ({"space": {"mitigation.0.temperature": {"choice": [1.0, -1]}}}, "space.mitigation.0.temperature", "-1"),
        ({"space": {"mitigation.3.share": {"choice": [1.0]}}}, "space.mitigation.3.share", "no position"),
        # Found by a check that no schema makes, at the second value only.
        ({"space": {"mitigation.0.share": {"choice": [0.25, 0.3]}}}, "space.mitigation.0.share", "whole rows"),
        (
            {"space": {"mitigation": {"named": {"plain": [], "odd": [{"type": "context_fre"}]}}}},
            "space.mitigation.0", "context_free",
        ),
        # The far end of a range: no draw of it has to be made.
        (
            {"space": {"train.clip": {"uniform": [-1, 1]}}, "search": "optuna", "trials": 1},
            "space.train.clip", "greater than 0",
        ),
        ({"metric": "forgeting"}, "metric", "did you mean `forgetting`"),
        ({"metric": "forward"}, "metric", "forward_transfer"),
        ({"metric": "forgetting_old", "space": {"evaluate.texts": {"choice": [TASKS["texts"]]}}}, "metric", "average"),
        ({"sequence": "sequence.yaml"}, "", "no such file"),
        ({"search": "random", "trials": 3, "space": {"train.clip": {"choice": [1, 2]}}}, "trials", "only 2"),
        ({"concurrency": 2, "search": "grid"}, "concurrency", "there are 2"),
    ],
)  # fmt: skip
def test_every_point_is_checked_before_a_start(project: Path, changes: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        prepare(load(project, **changes))
    assert error.value.key == key
    assert words in str(error.value)
    assert not (project / "runs").exists()


def test_a_name_that_a_run_has_is_refused(project: Path) -> None:
    (project / "runs" / "ab").mkdir(parents=True)
    (project / "runs" / "ab" / "ledger.jsonl").touch()
    with pytest.raises(ConfigurationError, match="is the name of a run"):
        make_trials(load(project))


def test_arguments_go_to_the_sweep_or_to_every_sequence(project: Path) -> None:
    source = load(project, "seeds=[5]", "train.micro_rows=2", "metric=a")
    assert source.ablation.seeds == [5]
    assert source.ablation.metric == ["a"]
    assert source.overrides == ["train.micro_rows=2"]
    trials = make_trials(source).made.values()
    assert len(trials) == 4
    assert all(trial.loaded.sequence.train.micro_rows == 2 for trial in trials)


# Points


def test_a_grid_is_every_combination_with_its_own_runs(project: Path) -> None:
    trials = list(make_trials(load(project)).made.values())
    wanted = list(itertools.product([0.7, 1.0], ["nll", "kl"], [0, 1]))
    found = [(t.loaded.sequence.mitigation[0], t.loaded.sequence.seed) for t in trials]
    assert [(m.temperature, m.loss, seed) for m, seed in found] == wanted  # type: ignore[attr-defined]
    names = [trial.loaded.sequence.name for trial in trials]
    assert len(set(names)) == 8
    assert all(name.startswith("ab-temperature-") for name in names)
    track = trials[0].loaded.sequence.track
    swept = {"mitigation.0.temperature": "0.7", "mitigation.0.loss": "nll", "seed": "0"}
    assert track.params == swept
    assert track.tags == {"sweep": "ab", **swept}
    assert track.experiment == "ab"


def test_named_lists_and_keys_in_them(project: Path) -> None:
    lists = {"kl": [{"type": "context_free", "share": 0.25}], "ewc": [{"type": "ewc"}]}
    space = {"mitigation.0.weight": {"choice": [0.5]}, "mitigation": {"named": lists}}
    trials = list(make_trials(load(project, space=space, seeds=None)).made.values())
    assert [trial.loaded.sequence.mitigation[0].type for trial in trials] == ["context_free", "ewc"]
    assert [trial.loaded.sequence.mitigation[0].weight for trial in trials] == [0.5, 0.5]  # type: ignore[attr-defined]
    assert [trial.point["mitigation"] for trial in trials] == ["kl", "ewc"]


def test_paths_of_values_lie_beside_the_sweep(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(project, space={"stages.0.data.path": {"choice": ["qa.jsonl"]}})
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")
    trial = next(iter(make_trials(load_ablation(path)).made.values()))
    assert trial.loaded.sequence.stages[0].data.path == str(project / "qa.jsonl")
    assert trial.loaded.identity["stages"][0]["data"]["path"] == "qa.jsonl"


def ablation(**changes: Any) -> Ablation:
    return Ablation.model_validate({"name": "a", "sequence": "s", "search": "random", "trials": 8, **changes})


@given(st.integers(0, 10**6), st.floats(1e-6, 1e3), st.floats(1.001, 1e3))
def test_draws_lie_in_their_ranges_and_are_the_same_again(seed: int, low: float, factor: float) -> None:
    space = {"u": {"uniform": [low, low * factor]}, "l": {"loguniform": [low, low * factor]}, "c": {"choice": [1, [2]]}}
    one = ablation(space={**space, "g": {"grid": ["x", "y"]}}, search_seed=seed)
    try:
        points = drawn_points(one)
    except ConfigurationError:
        assume(False)
    assert points == drawn_points(one)
    assert len(points) == 16
    assert all(low <= point[key] <= low * factor for point in points for key in "ul")
    assert all(point["c"] in (1, [2]) for point in points)
    assert [point["g"] for point in points] == ["x", "y"] * 8
    assert len({json.dumps(point) for point in points}) == 16


def test_loguniform_is_even_by_the_logarithm() -> None:
    points = drawn_points(ablation(space={"l": {"loguniform": [1e-4, 1.0]}}, trials=2000))
    shares = np.histogram([math.log10(point["l"]) for point in points], bins=4, range=(-4, 0))[0] / 2000
    # Four standard errors of a share of a quarter.
    assert np.all(np.abs(shares - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 2000))


def test_corners_hold_every_listed_value_and_both_ends() -> None:
    space = ablation(space={"u": {"uniform": [1, 2]}, "c": {"choice": [1, 2, 3]}, "n": {"named": {"x": []}}}).space
    points = corner_points(space)
    assert {p["u"] for p in points} == {1, 2}
    assert {p["c"] for p in points} == {1, 2, 3}
    assert points[0]["n"] == "x"


def test_names_are_a_function_of_point_and_seed_and_tell_all_apart() -> None:
    values: list[Any] = [1, 1.0, "1", True, None, [1], {"a": 1}, "a" * 300, "a" * 301, "ä/ö"]
    names = [trial_name("s", {"k": value}, seed) for value in values for seed in (0, 1)]
    # 1 and 1.0 are the same number, but YAML tells them apart, and so may a schema.
    assert len(set(names)) == len(names)
    assert names == [trial_name("s", {"k": value}, seed) for value in values for seed in (0, 1)]
    Ablation.model_validate({"name": names[0], "sequence": "s"})
    assert all(len(name) < 120 for name in names)
    for name in names:
        Ablation.model_validate({"name": name, "sequence": "s"})


def test_short_keys_stay_distinct() -> None:
    assert short_keys(["mitigation.0.weight", "train.weight", "train.clip", "seed"]) == {
        "mitigation.0.weight": "0.weight", "train.weight": "train.weight", "train.clip": "clip", "seed": "seed",
    }  # fmt: skip


def test_sections_are_overridden_before_keys_in_them() -> None:
    one = ablation(space={"a.b": {"choice": [1]}, "a": {"named": {"x": {"b": 2}}}})
    assert overrides(one, {"a.b": 1, "a": "x"}) == ['a={"b": 2}', "a.b=1"]


def test_a_grid_over_nothing_is_one_point() -> None:
    assert grid_points({}) == [{}]


# Resources


def fitting(project: Path, *changes: str) -> Any:
    return load_sequence(project / "seq.yaml", list(changes)).sequence


@pytest.mark.parametrize(
    ("changes", "concurrency", "cpus", "fits"),
    [
        ((), 1, 2.0, True),  # one engine with one CPU, one CPU free
        ((), 2, 2.0, False),
        ((), 2, 3.0, True),
        (("generate.cpus_per_replica=0.5",), 2, 2.0, True),
        (("generate.cpus_per_replica=0.5", "train.workers=2", "train.cpus_per_worker=0.5"), 2, 2.0, False),
        (("mitigation=[]", "train.workers=2"), 8, 2.0, True),  # workers take a share
        ((), 100, None, True),  # a cluster not yet asked
    ],
)
def test_what_cannot_fit_beside_its_workers_is_refused(
    project: Path, changes: tuple[str, ...], concurrency: int, cpus: float | None, fits: bool
) -> None:
    one = fitting(project, *changes)
    if fits:
        check_concurrency([one], concurrency, cpus, None)
    else:
        with pytest.raises(ConfigurationError, match="concurrency"):
            check_concurrency([one], concurrency, cpus, None)


def test_gpus_of_all_trials_have_to_be_there(project: Path) -> None:
    one = fitting(project, "train.gpus_per_worker=1")
    check_concurrency([one], 2, 8.0, 2.0)
    with pytest.raises(ConfigurationError, match="concurrency: 2"):
        check_concurrency([one], 3, 8.0, 2.0)


@given(st.integers(2, 16), st.integers(1, 8), st.integers(2, 64))
def test_shares_leave_one_cpu_free(concurrency: int, workers: int, cpus: int) -> None:
    train = SimpleNamespace(workers=workers, cpus_per_worker=None)
    (text,) = shares(SimpleNamespace(train=train), concurrency, float(cpus))  # type: ignore[arg-type]
    each = float(text.removeprefix("train.cpus_per_worker="))
    assert each == LEAST_CPUS or concurrency * workers * each <= cpus - 1 + 1e-9
    assert each >= LEAST_CPUS


# Plan


def test_what_trials_share_is_counted_before_the_start(project: Path) -> None:
    space = {"mitigation.0.temperature": {"grid": [0.7, 1.0]}, "mitigation.0.loss": {"grid": ["nll", "kl"]}}
    source = load(project, "mitigation.0.rows=16", "mitigation.0.from_stage=2", space=space)
    trials = make_trials(source)
    plan = make_sweep_plan(trials.made.values())
    # Both losses rehearse the same samples. Stage 1 has no mitigation: one training per seed for four trials each.
    assert (plan.trials, plan.sample_sets, plan.all_sample_sets) == (8, 4, 8)
    assert (plan.stages, plan.all_stages) == (2 + 8, 16)
    assert plan.sample_tokens == 4 * 16 * 32
    # 100 documents of 6 tokens, 5 in a row of 32 tokens: 20 rows, 2 epochs, 8 rows a step.
    assert plan.steps == 2 * 10 + 8 * 5
    assert plan.task_tokens == plan.steps * 256
    assert plan.about
    text = render_sweep(source, trials.made, plan, {next(iter(trials.made)): "done"})
    assert "8 = 2 temperature x 2 loss x 2 seeds, 1 at the same time" in text
    assert "4 sets for 8 uses" in text
    assert text.count("  done") == 1
    assert text.count("  new") == 7


def shared(project: Path, *changes: str) -> list[Any]:
    return rehearse(fitting(project, *changes), [10, 5])


def test_a_sample_set_is_told_by_what_decides_it(project: Path) -> None:
    plain = shared(project, "mitigation.0.rows=16")
    sets = [next(iter(stage.samples)) for stage in plain]
    assert sets[0] != sets[1]  # of another model
    same = shared(project, "mitigation.0.rows=16", "mitigation.0.weight=2")
    assert set(same[0].samples) == {sets[0]}
    assert set(same[1].samples) != {sets[1]}  # stage 1 was trained with another weight
    for change in ("seed=1", "mitigation.0.top_p=0.5", "mitigation.0.rows=17", "generate.shard_samples=8"):
        other = shared(project, "mitigation.0.rows=16", change)
        assert not {name for stage in other for name in stage.samples} & set(sets), change
    assert [stage.training for stage in shared(project, "mitigation.0.rows=16", "train.micro_rows=2")] == [
        stage.training for stage in plain
    ]


def test_what_a_hook_cannot_tell_counts_as_its_own(project: Path) -> None:
    found = shared(project, "mitigation=[{type: contextual, share: 0.25}]")
    # contextual reads the task's rows first, which are not there; its own estimate stands for it.
    assert [list(stage.samples.values()) for stage in found] == [[(2 * 10 + 8) * 32], [(2 * 1000 + 8) * 32]]
    assert not shared(project, "mitigation=[{type: task_replay, share: 0.25}]")[1].samples


# Halving


def verdicts(reports: list[tuple[str, int, float]], factor: float, earlier: list[tuple[int, float]]) -> dict[str, Any]:
    from continual.sweep.scheduler import StageHalving

    stopped: dict[str, Any] = {}
    scheduler = StageHalving(factor, earlier, lambda name, *why: stopped.update({name: why}))
    for name, stage, value in reports:
        trial = SimpleNamespace(trial_id=name, config={"trial": {"name": name, "stages": 2 if name == "short" else 3}})
        decision = scheduler.on_trial_result(None, trial, {"stage": stage, "mean_score": value})
        assert (decision == "STOP") == (name in stopped)
    return stopped


@settings(deadline=None)  # the first example imports Ray Tune
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12), st.sampled_from([1.5, 2.0, 4.0]))
def test_halving_decides_as_ray_tune_does(values: list[float], factor: float) -> None:
    from ray.tune.schedulers import ASHAScheduler

    ours = verdicts([(str(at), 1, value) for at, value in enumerate(values)], factor, [])
    theirs = ASHAScheduler(time_attr="stage", metric="mean_score", mode="max", max_t=3, grace_period=1,
                           reduction_factor=factor)  # fmt: skip
    stopped = set()
    for at, value in enumerate(values):
        trial = SimpleNamespace(trial_id=str(at))
        theirs.on_trial_add(None, trial)
        if theirs.on_trial_result(None, trial, {"stage": 1, "mean_score": value}) == "STOP":
            stopped.add(str(at))
    assert set(ours) == stopped
    for name, (stage, value, threshold) in ours.items():
        before = sorted(values[: int(name)])
        assert stage == 1
        assert value == values[int(name)] < threshold <= before[-1]


def test_values_of_an_earlier_start_count_and_the_last_stage_stops_nobody() -> None:
    assert verdicts([("bad", 1, 0.1)], 2, [(1, 0.5)]) == {"bad": (1, 0.1, 0.5)}
    assert verdicts([("good", 3, 0.9), ("bad", 3, 0.1)], 2, []) == {}
    assert verdicts([("first", 1, 0.1), ("good", 1, 0.9), ("first", 2, 0.0)], 2, []) == {}
    # Sequences of other lengths beside each other: each has a last stage of its own.
    assert verdicts([("good", 2, 0.9), ("short", 2, 0.1)], 2, []) == {}
    assert verdicts([("good", 2, 0.9), ("bad", 2, 0.1)], 2, []) == {"bad": (2, 0.1, 0.9)}


# Statistics


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=10))
def test_mean_and_error_are_numpys(values: list[float]) -> None:
    mean, error = mean_error(values)
    assert math.isclose(mean, np.mean(values), abs_tol=1e-9)
    if len(values) == 1:
        assert error is None
    else:
        assert error is not None
        assert math.isclose(error, np.std(values, ddof=1) / math.sqrt(len(values)), rel_tol=1e-7, abs_tol=1e-9)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_the_front_is_what_nothing_dominates(pairs: list[tuple[int, int]]) -> None:
    def dominated(one: tuple[int, int]) -> bool:
        return any(o[0] >= one[0] and o[1] >= one[1] and o != one for o in pairs)

    assert pareto_front(pairs) == [at for at, one in enumerate(pairs) if not dominated(one)]


# What became of it


def summary(final: dict[str, float], **figures: Any) -> dict[str, Any]:
    empty = dict.fromkeys(
        ["average_score", "forgetting", "forgetting_old", "backward_transfer", "forward_transfer", "learning_accuracy"]
    )
    scores = {task: {"score": score} for task, score in final.items()}
    return {
        **empty, "status": "done", "matrix": [{"stage": 2, "scores": scores}], "unit": dict.fromkeys(final, "nats"),
        "stages": ["one", "two"], "reused_stages": [], "samples": [], "mlflow_run_id": None, **figures,
    }  # fmt: skip


def finish(trial: Trial, final: dict[str, float], **figures: Any) -> None:
    folder = trial.loaded.run_folder
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary(final, **figures)))
    (folder / "ledger.jsonl").write_text('{"event": "closed", "time": 0}\n')


def swept(project: Path, **changes: Any) -> tuple[LoadedAblation, Trials, list[Trial]]:
    source = load(project, space={"mitigation.0.temperature": {"choice": [0.7, 1.0, 1.3]}}, **changes)
    trials = make_trials(source)
    return source, trials, list(trials.made.values())


def test_old_and_new_scores(project: Path) -> None:
    one = fitting(project)
    found = values_of(one, summary({"a": -1.0, "b": -2.0}, average_score=-1.5))
    assert found == {"a": -1.0, "b": -2.0, "average_score": -1.5, "old": -1.0, "new": -2.0}
    # A task that the last stage learns as well is new.
    both = fitting(project, "stages.1.tasks=[a, b]")
    assert values_of(both, summary({"a": -1.0, "b": -2.0}))["new"] == -1.5
    assert "old" not in values_of(both, summary({"a": -1.0, "b": -2.0}))


def test_the_mean_score_is_over_what_is_learned_so_far(project: Path) -> None:
    one = fitting(project)
    scores = {task: {"score": value, "unit": "nats", "stderr": 0, "n": 1} for task, value in (("a", -1.0), ("b", -3.0))}
    scored = [{"stage": stage, "name": "", "scores": scores} for stage in (0, 1, 2)]
    assert mean_score(one, scored, 1) == -1.0
    assert mean_score(one, scored, 2) == -2.0
    assert mean_score(one, scored[:2], 2) is None
    scores["b"]["unit"] = "acc"
    with pytest.raises(ConfigurationError, match="mix units"):
        mean_score(one, scored, 2)


def test_points_best_and_front(project: Path) -> None:
    source, _, trials = swept(project, metric=["forgetting", "average_score"])
    # Temperature 0.7 keeps a, 1.0 learns b, 1.3 is beaten by 1.0 on both.
    values = [(0.9, 0.1), (0.7, 0.3), (0.4, 0.8), (0.2, 1.0), (0.3, 0.5), (0.1, 0.3)]
    for trial, (a, b) in zip(trials, values, strict=True):
        finish(trial, {"a": a, "b": b}, forgetting=1 - a, average_score=(a + b) / 2)
    points = point_results([outcome(trial, {}, {}) for trial in trials], source.ablation.metric)
    assert [point.front for point in points] == [True, True, False]
    assert [point.best for point in points] == [True, False, False]  # forgetting: less is better
    mean, error = points[0].values["average_score"]
    assert mean == pytest.approx(0.5)
    assert error == pytest.approx(0.0)
    assert points[1].values["forgetting"] == (pytest.approx(0.7), pytest.approx(np.std([0.6, 0.8], ddof=1) / 2**0.5))
    by_score = point_results([outcome(trial, {}, {}) for trial in trials], ["average_score", "forgetting"])
    assert [point.best for point in by_score] == [False, True, False]


def test_equal_points_are_decided_by_the_second_metric(project: Path) -> None:
    source, _, trials = swept(project, seeds=[0])
    for trial, forgetting in zip(trials, (0.3, 0.2, 0.4), strict=True):
        finish(trial, {"a": 0.5, "b": 0.5}, forgetting=forgetting, average_score=0.5)
    points = point_results([outcome(trial, {}, {}) for trial in trials], ["average_score", "forgetting"])
    assert [point.best for point in points] == [False, True, False]
    assert all(point.front for point in points)
    assert table(source.ablation, points)[2].split("|")[2].strip() == "1"


def test_everything_that_is_left_says_why(project: Path) -> None:
    source, _, trials = swept(project)
    for trial in trials[:3]:
        finish(trial, {"a": 0.5, "b": 0.5}, average_score=0.5, samples=["s1"])
    state = State.load(project, source.ablation)
    state.stopped = {trials[4].name: Stopped(1, 0.02, 0.61)}
    outcomes = [outcome(trial, state.stopped, {trials[3].name: "no memory"}) for trial in trials]
    assert [one.state for one in outcomes] == ["done", "done", "done", "failed", "stopped", "waiting"]
    folder = project / "out"
    folder.mkdir()
    text, points = write_results(folder, source, outcomes)
    assert "- temperature=1.3 seed=0: stopped after stage 1: mean score 0.02, below 0.61" in text
    assert "- temperature=1.0 seed=1: failed: no memory" in text
    assert "1 sample set" in text
    assert [point.n for point in points] == [2, 1, 0]
    assert [point.best for point in points] == [True, False, False]
    assert "1 of 2" in text
    assert (folder / "pareto.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((folder / "sweep.json").read_text())
    assert [one["state"] for one in found["trials"]] == [one.state for one in outcomes]
    assert found["points"][0]["mean"]["average_score"] == 0.5
    assert found["sample_sets"] == 1


def test_the_best_point_is_a_sequence_of_its_own(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, _, trials = swept(project)
    for trial, score in zip(trials, (0.1, 0.1, 0.9, 0.8, 0.2, 0.2), strict=True):
        finish(trial, {"a": score, "b": score}, average_score=score)
    outcomes = [outcome(trial, {}, {}) for trial in trials]
    best = next(point for point in point_results(outcomes, ["average_score"]) if point.best)
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")
    (project / "elsewhere" / "best.yaml").write_text(best_yaml(source, best, outcomes))
    found = load_sequence("best.yaml").sequence
    wanted = trials[2].loaded.sequence
    assert found.name == "ab-best"
    assert not found.track.tags
    assert not found.track.params
    keep = {"name", "track"}
    assert found.model_dump(exclude=keep) == wanted.model_dump(exclude=keep)


def test_a_changed_base_is_refused_for_runs_that_were_begun(project: Path) -> None:
    from continual.run.resume import IDENTITY
    from continual.sweep.trials import refuse_changed

    _, _, trials = swept(project)
    trials[0].loaded.run_folder.mkdir(parents=True)
    (trials[0].loaded.run_folder / IDENTITY).write_text(json.dumps(trials[0].loaded.identity))
    refuse_changed(trials)
    changed = make_trials(load_ablation(project / "ablation.yaml", ["train.learning_rate=0.5"])).made.values()
    with pytest.raises(ConfigurationError, match=r"values of train\.learning_rate"):
        refuse_changed(changed)
    # Where the sweep runs and how it is tracked decides nothing.
    refuse_changed(make_trials(load_ablation(project / "ablation.yaml", ["train.cpus_per_worker=0.5"])).made.values())


# Memory


def test_stops_hold_for_the_scheduler_that_made_them(project: Path) -> None:
    asha = load(project, scheduler="asha").ablation
    state = State.load(project, asha)
    state.stop("one", Stopped(1, 0.5, 0.75))
    state.add({"k": 1})
    state.close(True)
    again = State.load(project, asha)
    assert again.closed
    assert again.stopped == {"one": Stopped(1, 0.5, 0.75)}
    assert again.points == [{"k": 1}]
    assert not State.load(project, load(project, scheduler="asha", reduction_factor=3).ablation).stopped
    assert not State.load(project, load(project).ablation).stopped


def test_the_tracker_hears_once_of_a_stop_also_after_a_kill(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(at_work, "close_stopped", lambda trial, why: told.append(trial.name))
    killed = prepare(load(project, scheduler="asha"))
    name = list(killed.trials.made)[1]
    killed.folder.mkdir(parents=True)
    killed.state.stop(name, Stopped(1, 0.1, 0.5))
    for _ in range(2):
        at_work._close_stopped(prepare(load(project, scheduler="asha")))
    assert told == [name]


CLIP, RATE = {"uniform": [1, 2]}, {"choice": [0.1, 0.2]}


@pytest.mark.parametrize(
    ("clip", "rate", "more", "key"),
    [
        (CLIP, None, {}, "learning_rate"),
        ({"uniform": [3, 4]}, RATE, {}, "clip"),
        (CLIP, {"choice": [0.2]}, {}, "learning_rate"),
        (CLIP, RATE, {"train.warmup_steps": {"choice": [1]}}, "warmup_steps"),
    ],
)
def test_a_search_keeps_to_the_space_of_its_points(
    project: Path, clip: dict[str, Any], rate: dict[str, Any] | None, more: dict[str, Any], key: str
) -> None:
    pytest.importorskip("optuna")

    def given(clip: Any, rate: Any, more: Any, fresh: bool = False) -> Any:
        swept = {"train.clip": clip, **({"train.learning_rate": rate} if rate else {}), **more}
        return prepare(load(project, space=swept, search="optuna", trials=3), fresh)

    begun = given(CLIP, RATE, {})
    begun.folder.mkdir(parents=True)
    begun.state.add({"train.clip": 1.5, "train.learning_rate": 0.1})
    wider = given({"uniform": [0.5, 4]}, {"choice": [0.3, 0.1]}, {})
    assert len(wider.listed()) == len(begun.listed()) > 0
    with pytest.raises(ConfigurationError, match="not in this space") as error:
        given(clip, rate, more)
    assert error.value.key == f"space.train.{key}"
    assert "--fresh" in str(error.value)
    assert given(clip, rate, more, fresh=True).listed() == []


def test_one_driver_at_a_time(project: Path) -> None:
    with claimed(project), pytest.raises(ContinualError, match="another driver"), claimed(project):
        pass


def test_what_a_begun_trial_has_done_is_read_from_its_ledger(project: Path) -> None:
    _, _, trials = swept(project)
    folder = trials[0].loaded.run_folder
    folder.mkdir(parents=True)
    scores = {task: {"score": -1.0, "unit": "nats", "stderr": 0, "n": 1} for task in "ab"}
    events = [{"event": "scored", "stage": stage, "name": "", "scores": scores} for stage in (0, 1)]
    (folder / "ledger.jsonl").write_text("".join(json.dumps(e) + "\n" for e in [*events, {"event": "stage_done"}]))
    assert history(trials[0]) == [(1, -1.0)]
    assert history(trials[1]) == []
    assert outcome(trials[0], {}, {}) == Outcome(trials[0], "waiting", "interrupted in stage 2")


# Optuna


def test_optuna_goes_on_where_it_stood(project: Path) -> None:
    pytest.importorskip("optuna")
    from continual.sweep.search import SeededOptuna

    space = {"mitigation.0.weight": {"uniform": [0, 1]}, "mitigation.0.loss": {"choice": ["nll", "kl"]}}
    source = load(project, space=space, search="optuna", trials=4)
    trials = Trials(source)
    recorded: list[dict[str, Any]] = []

    def searcher(known: int) -> SeededOptuna:
        before = [(point, trials.make(point)) for point in recorded[:known]]
        return SeededOptuna(
            source.ablation, before, trials.make, recorded.append, lambda t: outcome(t, {}, {}), lambda t: {"t": t.name}
        )

    def run(search: SeededOptuna, count: int) -> list[str]:
        names = []
        for number in range(count):
            config = search.suggest(str(number))
            assert isinstance(config, dict)
            names.append(config["t"])
            finish(trials.made[config["t"]], {"a": 0.0, "b": 0.0}, average_score=float(number))
            search.on_trial_complete(str(number), {})
        return names

    first = run(searcher(0), 3)
    assert len(recorded) == 2
    assert len(set(first)) == 3
    again = searcher(2)
    # The first point is told with the mean of its seeds; the second seed of the second one comes next.
    assert [t.values for t in again.study.trials if t.state.is_finished()] == [[0.5]]
    rest = run(again, 5)
    assert rest[0] not in first
    assert trials.made[rest[0]].point == recorded[1]
    assert len(recorded) == 4
    assert len({*first, *rest}) == 8
    assert again.suggest("last") == "FINISHED"
    assert {trials.made[name].seed for name in rest[1:]} == {0, 1}
