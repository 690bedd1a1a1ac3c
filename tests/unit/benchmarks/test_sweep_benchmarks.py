"""Shipped sweeps are valid; the tables of their benchmarks say what the trials say."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from benchmarks import sweeps
from benchmarks.arithmetic import capacity, four_tasks
from benchmarks.stories import temperature
from continual.associations.spec import load_associate, prepare_sweep
from continual.config.load import load_sequence
from continual.forgetting import scores_from_json
from continual.preflight.check import check
from continual.show.report.gather import RunData, StageLog
from continual.sweep.spec import load_ablation
from continual.sweep.sweep import plan_text, prepare

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = [path for path in (ROOT / "benchmarks").rglob("*.yaml") if "lm_eval" not in path.parts]
SWEEPS = [path for path in SHIPPED if "sequence" in yaml.safe_load(path.read_text())]
SEQUENCES = [path for path in SHIPPED if path not in SWEEPS]


def settings(path: Path, storage: Path, request: pytest.FixtureRequest) -> list[str]:
    """Overrides with which a shipped file can be checked here."""
    found = [f"storage={storage}"]
    if "type: pretrained" in path.read_text():  # capacity.yaml begins with the model of another run: any one will do
        found.append(f"model.source={request.getfixturevalue('shared') / 'models' / 'stories260k-hd32'}")
    return found


@pytest.mark.parametrize("path", SEQUENCES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_shipped_sequence_is_valid(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    check(load_sequence(str(path), settings(path, tmp_path, request)))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_shipped_sweep_has_a_plan(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    base = path.parent / yaml.safe_load(path.read_text())["sequence"]
    given = settings(base, tmp_path, request)
    if "upstream" in yaml.safe_load(path.read_text()):
        sweep = prepare_sweep(load_associate(str(path), given))
    else:
        sweep = prepare(load_ablation(str(path), given))
    assert "\n  trials " in plan_text(sweep)


def test_the_short_sweep_repeats_arms_of_the_long_one() -> None:
    long, short = (
        yaml.safe_load((ROOT / "benchmarks" / "arithmetic" / name).read_text())["space"]["mitigation"]["named"]
        for name in ("four_tasks_arms.yaml", "four_tasks_short.yaml")
    )
    assert len(short) == 2
    assert all(long[name] == arm for name, arm in short.items())


def test_the_published_arms_are_the_published_replay_with_its_samples_repeated() -> None:
    folder = ROOT / "benchmarks" / "arithmetic"
    sequence = yaml.safe_load((folder / "published.yaml").read_text())
    arms = yaml.safe_load((folder / "published_arms.yaml").read_text())["space"]["mitigation"]["named"]
    [replay] = sequence["mitigation"]
    rows = {stage["data"]["arguments"]["count"] for stage in sequence["stages"]}
    assert arms == {"none": [], "nll": [replay | {"samples": rows.pop()}]}
    assert not rows


def test_one_size_at_a_time(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["four_tasks", "--short", "--published"])
    with pytest.raises(SystemExit):
        four_tasks.main()
    assert "not allowed with argument" in capsys.readouterr().err


def test_capacity_sweeps_every_base_model(tmp_path: Path) -> None:
    found = capacity.ablation(tmp_path)
    models = found["space"]["model.source"]["named"]
    assert len(models) == 4
    assert len(set(models.values())) == 4
    sizes = [len(axis.get("named") or axis["grid"]) for axis in found["space"].values()]
    assert sizes == [4, 2, 5]
    for run, _, arguments in capacity.bases().values():
        overrides = [f"name={run}", f"storage={tmp_path}", *(f"model.arguments.{k}={v}" for k, v in arguments.items())]
        check(load_sequence(str(capacity.HERE / "capacity_base.yaml"), overrides))
        assert f"{tmp_path}/{run}/stages/1-reversal/model" in models.values()


def run(scores: list[dict[str, float]], stages: list[tuple[str, int, dict[int, dict[str, float]]]], **more: Any) -> Any:
    """A run as a report reads it: scores after every stage, steps and scores inside the stages."""

    def entry(found: dict[str, float]) -> dict[str, Any]:
        return {task: {"score": score, "stderr": 0.01, "n": 128} for task, score in found.items()}

    logs, first = [], 0
    for number, (name, steps, inside) in enumerate(stages, 1):
        found = {step: scores_from_json(entry(at)) for step, at in inside.items()}
        logs.append(StageLog(number, name, first, steps, [], found, True))
        first += steps
    matrix = [{"stage": at, "name": str(at), "scores": entry(found)} for at, found in enumerate(scores)]
    return RunData(Path(), {}, "", {"matrix": matrix, **more}, True, logs, [], {})


def trial(point: dict[str, Any], seed: int, of: RunData) -> Any:
    return SimpleNamespace(
        point=point, seed=seed, run=of, final=lambda task: of.summary["matrix"][-1]["scores"][task]["score"]
    )


def test_results_of_a_sweep_that_did_not_end_replace_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "found.md").write_text("whole")
    with pytest.raises(SystemExit) as ended:
        sweeps.finish("found", tmp_path, {}, "a part", lambda results, path: None, 1)
    assert ended.value.code == 1
    assert (tmp_path / "found.md").read_text() == "whole"
    assert "a part" in capsys.readouterr().out
    sweeps.finish("found", tmp_path, {}, "more", lambda results, path: None, 0)
    assert (tmp_path / "found.md").read_text() == "more\n"


def test_four_tasks_table_has_means_over_the_seeds_and_curves_over_all_stages(tmp_path: Path) -> None:
    tasks = four_tasks.TASKS
    trials = []
    for seed, last in enumerate((0.2, 0.4)):
        after = [dict.fromkeys(tasks, 0.0) for _ in range(4)] + [{"add": last, "reversal": 1, "sort": 1, "modadd": 1}]
        stages = [(task, 100, {50: dict.fromkeys(tasks, 0.5)}) for task in tasks]
        figures = {"average_score": 0.8, "forgetting": 0.1, "backward_transfer": 0.0, "learning_accuracy": 0.9}
        trials.append(trial({"mitigation": "none"}, seed, run(after, stages, **figures)))
    found = four_tasks.collect(trials)
    assert found["stages"] == {"add": 0, "reversal": 100, "sort": 200, "modadd": 300}
    assert found["limit"] == 128
    (first, _) = found["arms"]["none"]["curves"]["add"]
    assert first["steps"] == [0, 50, 100, 150, 200, 250, 300, 350, 400]
    assert first["scores"] == [0, 0.5, 0, 0.5, 0, 0.5, 0, 0.5, 0.2]
    assert "| none | 2 | 0.300 ±0.100 | 1.000 ±0.000 |" in four_tasks.table(found)
    four_tasks.plot(found, tmp_path / "found.png")
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
    json.dumps(found)


def test_capacity_compares_where_the_new_score_passes_the_target(tmp_path: Path) -> None:
    target = capacity.TARGET
    points = [{"new": target - 1, "old": -0.5}, {"new": target + 1, "old": -0.9}]
    runs = [
        run([{"new": -3.0, "old": -0.5}, points[1]], [("sort", 20, {10: points[0]})]),
        run([{"new": -3.0, "old": -0.5}, points[0]], [("sort", 20, {})]),
    ]
    trials = [
        trial({"model.source": "0.1M short", "mitigation": "none", "train.learning_rate": rate}, 0, of)
        for rate, of in zip((0.1, 0.01), runs, strict=True)
    ]
    found = capacity.collect(trials)
    reached, missed = found["trials"]
    assert abs(reached["old_at_target"] + 0.7) < 1e-12
    assert reached["steps_to_target"] == 20
    assert missed["old_at_target"] is None
    assert missed["steps_to_target"] is None
    assert "| 0.1M short | -0.500 | none | 0.200 (20) | not reached |" in capacity.table(found)
    capacity.plot(found, tmp_path / "found.png")
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")


def test_temperature_table_has_a_line_per_loss_and_share(tmp_path: Path) -> None:
    trials = [
        trial(
            {"mitigation.0.temperature": t, "mitigation.0.ratio": share, "mitigation.0.loss": loss}, 0,
            run([{"tinystories": -1.5, "shakespeare": -5.0}, {"tinystories": -t, "shakespeare": -2.5}], []),
        )
        for t in (1.5, 0.5) for share in (0.03125, 1.0) for loss in ("nll", "kl")
    ]  # fmt: skip
    found = temperature.collect(trials)
    text = temperature.table(found)
    assert "| loss | share | T = 0.5 | T = 1.5 |" in text
    assert "| nll | 1:32 | -0.500 / -2.500 | -1.500 / -2.500 |" in text
    assert "| kl | 1:1 | -0.500" in text
    assert "Before the stage: -1.500 / -5.000." in text
    temperature.plot(found, tmp_path / "found.png")
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("flags", [{}, {"short": "less", "long": "more"}])
def test_the_command_line_of_a_sweep_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: dict[str, str]
) -> None:
    monkeypatch.setattr("sys.argv", ["command", "--storage", str(tmp_path), "train.micro_rows=1", "--jobs", "2"])
    given = sweeps.options("What it does.", tmp_path / "results", **flags)
    assert (given.storage, given.jobs, given.overrides) == (tmp_path, 2, ["train.micro_rows=1"])
