"""Trials: their sequences and names, what is refused, how many fit at the same time."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.errors import ConfigurationError
from continual.ledger.folder import RunFolder
from continual.sweep.spec import load_ablation
from continual.sweep.trials import (
    LEAST_CPUS,
    check_concurrency,
    cpu_overrides,
    make_trials,
    refuse_changed,
)
from tests.kits.sweep import TASKS, base_sequence, load, swept, write


def test_the_name_of_a_run_is_refused(project: Path) -> None:
    (project / "runs" / "ab").mkdir(parents=True)
    (project / "runs" / "ab" / "ledger.jsonl").touch()
    with pytest.raises(ConfigurationError, match="is the name of a run"):
        make_trials(load(project))


@pytest.mark.parametrize("name", ["old", "new", "forgetting"])
def test_a_text_named_like_a_number_of_the_sweep_is_refused(project: Path, name: str) -> None:
    more = {"name": name, "data": {"type": "jsonl", "path": "qa.jsonl", "text": "question"}}
    source = load(project, f"evaluate.texts={json.dumps([*TASKS['texts'], more])}")
    with pytest.raises(ConfigurationError, match=f"named `{name}`, and a sweep has a number of that name"):
        make_trials(source)


def test_a_grid_is_every_combination_with_its_own_runs(project: Path) -> None:
    trials = list(make_trials(load(project)).made.values())
    wanted = list(itertools.product([0.7, 1.0], ["nll", "kl"], [0, 1]))
    mitigations = [(t.loaded.sequence.mitigation[0], t.loaded.sequence.seed) for t in trials]
    assert [(m.temperature, m.loss, seed) for m, seed in mitigations] == wanted  # type: ignore[attr-defined]
    names = [trial.loaded.sequence.name for trial in trials]
    assert len(set(names)) == 8
    assert all(name.startswith("ab-temperature-") for name in names)
    track = trials[0].loaded.sequence.track
    swept = {"mitigation.0.temperature": "0.7", "mitigation.0.loss": "nll", "seed": "0"}
    assert track.params == swept
    assert track.tags == {"sweep": "ab", **swept}
    assert track.experiment is None


def test_named_lists_and_keys_in_them(project: Path) -> None:
    lists = {"kl": [{"type": "context_free", "ratio": 0.25}], "ewc": [{"type": "ewc"}]}
    space = {"mitigation.0.weight": {"choice": [0.5]}, "mitigation": {"named": lists}}
    trials = list(make_trials(load(project, space=space, seeds=None)).made.values())
    assert [trial.loaded.sequence.mitigation[0].type for trial in trials] == ["context_free", "ewc"]
    assert [trial.loaded.sequence.mitigation[0].weight for trial in trials] == [0.5, 0.5]  # type: ignore[attr-defined]
    assert [trial.point["mitigation"] for trial in trials] == ["kl", "ewc"]


def test_paths_in_values_are_relative_to_the_sweep(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(project, space={"stages.0.data.path": {"choice": ["qa.jsonl"]}})
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")
    trial = next(iter(make_trials(load_ablation(path)).made.values()))
    assert trial.loaded.sequence.stages[0].data.model_dump()["path"] == str(project / "qa.jsonl")
    assert trial.loaded.identity["stages"][0]["data"]["path"] == "qa.jsonl"


def test_a_changed_base_is_refused_for_runs_that_were_begun(project: Path) -> None:
    _, _, trials = swept(project)
    trials[0].loaded.run_folder.mkdir(parents=True)
    RunFolder(trials[0].loaded.run_folder).identity.write_text(json.dumps(trials[0].loaded.identity))
    refuse_changed(trials)
    changed = make_trials(load_ablation(project / "ablation.yaml", ["train.learning_rate=0.5"])).made.values()
    with pytest.raises(ConfigurationError, match=r"values of train\.learning_rate"):
        refuse_changed(changed)
    # Where the sweep runs and how it is tracked decides nothing.
    refuse_changed(make_trials(load_ablation(project / "ablation.yaml", ["train.cpus_per_worker=0.5"])).made.values())


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
def test_trials_that_would_take_all_cpus_are_refused(
    project: Path, changes: tuple[str, ...], concurrency: int, cpus: float | None, fits: bool
) -> None:
    sequence = base_sequence(project, *changes)
    if fits:
        check_concurrency([sequence], concurrency, cpus, None)
    else:
        with pytest.raises(ConfigurationError, match="concurrency"):
            check_concurrency([sequence], concurrency, cpus, None)


def test_trials_that_need_more_gpus_than_there_are_are_refused(project: Path) -> None:
    sequence = base_sequence(project, "train.gpus_per_worker=1")
    check_concurrency([sequence], 2, 8.0, 2.0)
    with pytest.raises(ConfigurationError, match="concurrency: 2"):
        check_concurrency([sequence], 3, 8.0, 2.0)


@given(st.integers(2, 16), st.integers(1, 8), st.integers(2, 64))
def test_divided_cpus_leave_one_free(concurrency: int, workers: int, cpus: int) -> None:
    train = SimpleNamespace(workers=workers, cpus_per_worker=None)
    (text,) = cpu_overrides(SimpleNamespace(train=train), concurrency, float(cpus))  # type: ignore[arg-type]
    each = float(text.removeprefix("train.cpus_per_worker="))
    assert each == LEAST_CPUS or concurrency * workers * each <= cpus - 1 + 1e-9
    assert each >= LEAST_CPUS
