"""The walk by losses: the gate's rule, both criteria together, what is evaluated, a second call that makes nothing."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from baselines import repair
from baselines.merge import merge
from baselines.repair import Repair
from baselines.weight_average import average
from continual.api import Candidate, ModelRef, ScoreLoss, Tried, load_model
from continual.config.schema import Sequence
from continual.evaluation.service import Scorer, evaluators_of
from continual.ledger.ledger import Ledger
from continual.run.losses import StageLosses
from tests.kits import baselines as kit
from tests.unit.evaluation.test_identity import project

__all__ = ["project"]
ALPHAS = (0.25, 0.5, 0.75, 1.0)


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    kit.without_ray(monkeypatch)


def lost(**by_name: tuple[float, float]) -> dict[str, ScoreLoss]:
    """Losses with the half width of their intervals."""
    return {name: ScoreLoss(value, (value - half, value + half)) for name, (value, half) in by_name.items()}


class Told:
    """Losses in the order in which models are asked for, and the models."""

    def __init__(self, *losses: Mapping[str, ScoreLoss]):
        self.losses, self.asked = iter(losses), list[ModelRef]()

    def __call__(self, model: ModelRef, step: Any) -> dict[str, ScoreLoss]:
        self.asked.append(model)
        return dict(next(self.losses))


def walked(folder: Path, told: Told, **options: Any) -> tuple[list[Candidate], Any]:
    ctx = replace(kit.context(folder, []), measured_losses=told)
    mitigation = Repair(**{"type": "repair", "samples": 16, "alphas": ALPHAS, **options})
    assert (mitigation.prepare(ctx) == {}) == (mitigation.sampled_tokens(ctx.view) == 0)
    return mitigation.after_training(ctx, kit.model_ref(folder / "trained", 5)), ctx


def test_the_largest_share_that_does_not_exceed_its_limits_goes_on(tmp_path: Path) -> None:
    told = Told(lost(a=(0.5, 0.1)), lost(a=(0.31, 0.1), b=(0.9, 0.1)), lost(a=(0.31, 0.11), b=(0.9, 0.1)))
    candidates, ctx = walked(tmp_path, told, max_forgetting={"a": 0.2})
    assert [candidate.name for candidate in candidates] == ["repair 0.5", "repair 1", "repair 0.75"]
    assert candidates[0].model == told.asked[2], "a loss counts beyond its error alone, and only where it has a limit"
    assert [candidate.model for candidate in candidates[1:]] == told.asked[:2], "what was evaluated is in the summary"
    walk = candidates[0].walk
    assert walk is not None
    assert (walk.alpha, walk.drift_budget, walk.limits, walk.toward) == (0.5, None, {"a": 0.2}, "stage_start")
    assert [one.alpha for one in walk.tried] == [1.0, 0.75, 0.5]
    assert ctx.requests == [], "without a budget nothing is sampled"
    manifest = json.loads((Path(ctx.store.root) / "curves" / walk.curve / "manifest.json").read_text())
    assert manifest["curve"] == [one.as_json() for one in walk.tried]
    assert "`a` by alpha 1: 0.5, 0.75: 0.31, 0.5: 0.31" in ctx.terminal._out.getvalue()


def test_only_what_is_within_the_budget_is_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drifts = iter([0.4, 0.3, 0.2, 0.1])
    monkeypatch.setattr(repair, "drift", lambda rows, before, after: (next(drifts), 0.01))
    told = Told(lost(forgetting=(0.5, 0.0)), lost(forgetting=(0.1, 0.0)))
    candidates, _ = walked(tmp_path, told, drift_budget=0.3, max_forgetting=0.1)
    assert [candidate.name for candidate in candidates] == ["repair 0.5", "repair 0.75"]
    assert candidates[0].walk is not None
    assert [one.losses is None for one in candidates[0].walk.tried] == [True, False, False]


def test_nothing_that_can_be_lost_yet_keeps_what_was_trained(tmp_path: Path) -> None:
    candidates, ctx = walked(tmp_path, Told({}), max_forgetting=0.1)
    assert [(each.name, each.model.path) for each in candidates] == [("repair 1", str(tmp_path / "trained"))]
    assert "`forgetting` by alpha 1: nothing can be lost yet" in ctx.terminal._out.getvalue()


def test_where_every_share_loses_too_much_the_stage_is_undone(tmp_path: Path) -> None:
    candidates, ctx = walked(tmp_path, Told(*[lost(a=(1.0, 0.0))] * 4), max_forgetting={"a": 0.2})
    assert [(candidates[0].name, candidates[0].model)] == [("repair 0", ctx.stage_start)]
    assert candidates[0].walk is not None
    assert candidates[0].walk.alpha is None
    assert "none is within what is allowed, so the stage is undone" in ctx.terminal._out.getvalue()


@pytest.mark.parametrize(("first", "since"), [(None, 0), (2, 1)])
def test_toward_a_merge_the_merge_itself_comes_last(tmp_path: Path, first: int | None, since: int) -> None:
    exceeded, fine = lost(a=(1.0, 0.0)), lost(a=(0.1, 0.0))
    options = {"max_forgetting": {"a": 0.2}, "toward": "ties", "from_stage": first}
    candidates, ctx = walked(tmp_path / "merge", Told(*[exceeded] * 4, fine), **options)
    models = [ctx.start, ctx.stage_start, kit.model_ref(tmp_path / "trained", 5)]
    end = repair.merged(ctx, models[since:], "ties", 0.2, 0)
    assert (candidates[0].name, candidates[0].model) == ("repair 0", end)
    half = repair.averaged(ctx, end, models[-1], 0.5)
    assert [each.model for each in candidates if each.name == "repair 0.5"] == [half]
    candidates, ctx = walked(tmp_path / "undone", Told(*[exceeded] * 5), **options)
    assert (candidates[0].name, candidates[0].model) == ("repair undone", ctx.stage_start)


losses = st.lists(
    st.dictionaries(
        st.sampled_from(["forgetting", "forgetting_old", "a", "b"]),
        st.tuples(st.floats(-1, 1), st.none() | st.floats(0, 1)),
    ),
    min_size=4, max_size=4,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(drifts=st.lists(st.floats(0, 1), min_size=4, max_size=4), found=losses, budget=st.none() | st.floats(0.01, 1))
def test_what_holds_is_what_the_gate_lets_pass_within_the_budget(
    drifts: list[float], found: list[dict[str, tuple[float, float | None]]], budget: float | None
) -> None:
    limits = {"forgetting": 0.1, "a": 0.3}
    mitigation = Repair(type="repair", drift_budget=budget, max_forgetting=limits)
    for drifted, by_name in zip(drifts, found, strict=True):
        of = {n: ScoreLoss(v, None if h is None else (v - h, v + h)) for n, (v, h) in by_name.items()}
        naive = all(v - (h or 0.0) <= limits[n] + 1e-9 for n, (v, h) in by_name.items() if n in limits) and drifted <= (
            math.inf if budget is None else budget
        )
        one = Tried(0.5, None if budget is None else drifted, 0.1, of)
        assert (mitigation._within_budget(one) and not mitigation._loses_too_much(one)) == naive


def test_without_a_criterion_it_is_refused() -> None:
    cases: list[dict[str, float] | None] = [None, {}]
    for limits in cases:
        with pytest.raises(ValidationError, match="give `drift_budget`, `max_forgetting` or both"):
            Repair(type="repair", max_forgetting=limits)
    assert Repair(type="repair", max_forgetting=0.1).loss_limits(None) == {"default": 0.1}  # type: ignore[arg-type]


def test_keys_that_are_not_used_are_not_in_a_configuration() -> None:
    dumped = Repair(type="repair", drift_budget=0.1).model_dump(mode="json")
    assert not {"max_forgetting", "toward", "density"} & dumped.keys()


def test_a_curve_by_drift_alone_lies_where_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "drift", lambda rows, before, after: (0.2, 0.01))
    candidates, ctx = walked(tmp_path, Told(), drift_budget=0.3, alphas=(1.0,))
    rows = Repair(type="repair", drift_budget=0.3, samples=16)._rows(ctx)
    inputs = {"drift_of": [ctx.stage_start.hash, kit.model_ref(tmp_path / "same", 5).hash], "rows": rows.hash}
    assert candidates[0].walk is not None
    assert candidates[0].walk.curve == ctx.store.artefact("curves", {**inputs, "alphas": [1.0], "budget": 0.3}).hash


class Killed(Exception):
    """What ends a start in the middle."""


class Made:
    """What is made, in its order: merges, averages, drifts and evaluations; at number `kill` the start is killed."""

    def __init__(self, kill: int | None = None):
        self.made: list[str] = []
        self.kill = kill
        self.evaluate_each = SimpleNamespace(remote=self.noted("evaluation", self._evaluate))

    def noted(self, word: str, make: Any) -> Any:
        def call(*given: Any) -> Any:
            self.made.append(word)
            if len(self.made) == self.kill:
                raise Killed
            return make(*given)

        return call

    def _evaluate(self, model: str, outputs: dict[str, str], texts: Any) -> int:
        """Score a model by its share of the trained weights: the less of them, the better."""
        for name, output in outputs.items():
            share = (parameter(model) - SHARES[0]) / (SHARES[1] - SHARES[0])
            score = {"score": 0.9 - 0.4 * share, "unit": "accuracy"}
            Path(output).parent.mkdir(parents=True, exist_ok=True)
            Path(f"{output}.json").write_text(json.dumps({"scores": {name: score}}))
        return 0


def parameter(folder: str) -> float:
    return float(next(load_model(folder, "float32").parameters()).flatten()[0])


SHARES = [0.0, 1.0]
"""That parameter of the models at both ends."""


@pytest.fixture
def stage(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[list[Candidate], Made]]:
    """Run the hook of stage 2 in a storage of that name, and evaluate what continues; `kill` it, perhaps."""
    sequence = Sequence.model_validate({
        "name": "n", "model": {"type": "pretrained", "source": "m"},
        "stages": [
            {"name": name, "steps": 1, "data": {"type": "text", "path": "x"}, "tasks": [name]}
            for name in ("one", "script")
        ],
        "evaluate": {"include_path": str(project / "tasks")},
    })  # fmt: skip
    monkeypatch.setattr(ray, "wait", lambda calls, num_returns, timeout: (calls[:1], calls[1:]))
    trained = kit.model_ref(tmp_path / "trained", 5)

    def run(storage: str, kill: int | None = None) -> tuple[list[Candidate], Made]:
        ctx, made = kit.context(tmp_path / storage, []), Made(kill)
        scorer = Scorer(ctx.store, sequence, {}, evaluators_of(sequence, 1))
        monkeypatch.setattr(scorer.evaluators, "_start", lambda: made)
        monkeypatch.setattr("baselines.weight_average.average", made.noted("average", average))
        monkeypatch.setattr("baselines.merge.merge", made.noted("merge", merge))
        monkeypatch.setattr("continual.scoring.score._run", made.noted("drift", kit.score_in_process))
        options: dict[str, Any] = {"drift_budget": 100.0, "max_forgetting": 0.25, "toward": "ties", "samples": 16}
        with Ledger(tmp_path / storage / "run") as ledger:
            for number in (0, 1):
                cells = {name: {"score": 0.9 * number, "unit": "accuracy"} for name in ("one", "script")}
                ledger.find("scored", stage=number) or ledger.add(
                    "scored", stage=number, name=str(number), model=f"m{number}", scores=cells
                )
            losses = StageLosses(scorer, ledger, 2, "script", lambda: None)
            mitigation = Repair(**{"type": "repair", "alphas": ALPHAS, **options})
            candidates = mitigation.after_training(replace(ctx, measured_losses=losses), trained)
            # A start that is killed now has this line, and no `stage_done`.
            ledger.add("scored", stage=2, name="script", model="m2", scores=cells)
        scorer.score(candidates[0].model)
        return candidates, made

    ctx = kit.context(tmp_path / "ends", [])
    SHARES[:] = (
        parameter(repair.merged(ctx, [ctx.start, ctx.stage_start, trained], "ties", 0.2, 0).path),
        parameter(trained.path),
    )
    return run


def test_a_second_call_makes_nothing_and_chooses_the_same(stage: Any) -> None:
    first, made = stage("a")
    assert [candidate.name for candidate in first] == ["repair 0.5", "repair 1", "repair 0.75"]
    tried = first[0].walk.tried
    assert [one.losses["forgetting"].value for one in tried] == pytest.approx([0.4, 0.3, 0.2], abs=1e-3)
    assert made.made == [
        "drift", "drift", "evaluation", "merge", "average", "drift", "evaluation", "average", "drift", "evaluation"
    ], "the model before, the trained one, then a share at a time"  # fmt: skip
    again, nothing = stage("a")
    assert again == first
    assert nothing.made == [], "also the model that continues is evaluated already"


def test_killed_anywhere_it_goes_on_and_chooses_the_same(stage: Any) -> None:
    whole, made = stage("whole")
    for kill in range(1, len(made.made) + 1):
        with pytest.raises(Killed):
            stage(f"killed {kill}", kill)
        found, rest = stage(f"killed {kill}")
        assert rest.made == made.made[kill - 1 :], "what was there is not made again"
        assert [(each.name, each.model.hash) for each in found] == [(each.name, each.model.hash) for each in whole]
        assert found[0].walk.as_json() == whole[0].walk.as_json()
