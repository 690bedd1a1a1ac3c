"""The checks that every mitigation passes, as a class that the author of one inherits from in a test file.

A subclass names its method and options; pytest runs the rest on tiny random models and rows, in process, in seconds.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from continual.contract.mitigation import Mitigation
from continual.contract.models import ModelFacts
from continual.contract.registry import MITIGATIONS
from continual.store import digest
from continual.testing import loop, rules, two_ranks
from continual.testing.toys import Offline, context, first_stage, without_ray
from continual.training.job import TASK, TrainJob

if TYPE_CHECKING:
    import pytest

STEPS = 50
"""Steps that strength zero is compared over."""
SHORT, KILLED, CHECKPOINT = 12, 9, 4
"""Steps of a run that is killed, the step that it is killed after, and the steps between its checkpoints."""
VISIBLE = 1e-3
"""A difference, in nats or in a weight, that no rounding makes."""

Plain = tuple[list[float], dict[str, torch.Tensor]]
"""The task's loss of every step, and the weights at the end."""


class MethodUnderTest:
    """What a subclass says of its method.

    Attributes:
        options: The entry of the list of mitigations, with its `type`. It must act in the second of two stages.
        zero: Options at which it must change nothing; None if there are none, as for an adapter.
        zero_equal_losses: At strength zero all tokens have the same loss under a frozen model: for a method that
            weighs tokens by their losses, which has no other zero.
        starts_unchanged: A method with `adapt` leaves the model as it was until the first step.
        exact_tokens: `sampled_tokens` is what it samples, not only the most.
    """

    options: ClassVar[dict[str, Any]]
    zero: ClassVar[dict[str, Any] | None] = None
    zero_equal_losses: ClassVar[bool] = False
    starts_unchanged: ClassVar[bool] = True
    exact_tokens: ClassVar[bool] = False

    def context(self, folder: Path, steps: int = SHORT, options: dict[str, Any] | None = None, **train: Any) -> Offline:
        """Return stage 2 of a toy sequence with the method."""
        ctx = context(folder, [{**self.options, **(options or {})}], **train)
        return replace(ctx, view=replace(ctx.view, steps=steps, facts=_facts))

    def method(self, ctx: Offline) -> Mitigation:
        """Return the method as the sequence has it."""
        [mitigation] = ctx.sequence.mitigation
        return mitigation


class InProcessConformance(MethodUnderTest):
    """All checks that need one process."""

    def test_strength_zero_is_plain_training(self, tmp_path: Path, monkeypatch: "pytest.MonkeyPatch") -> None:
        """Losses of 50 steps and the weights that continue equal plain fine-tuning's bit by bit."""
        if self.zero is None:
            _skip("has no options at which it changes nothing")
        without_ray(monkeypatch)
        if self.zero_equal_losses:
            monkeypatch.setattr("continual.scoring.columns.nll_columns", _equal_losses)
        ctx = self.context(tmp_path, STEPS, self.zero)
        records, weights = _run(ctx, job := loop.job_of(ctx))
        losses, expected = _plain()
        np.testing.assert_array_equal(_task(records), losses, "the task's losses")
        _assert_equal(weights, expected)
        for stream in job.streams[1:]:
            least = min(abs(record["loss"][stream.name]) for record in records[1:])
            assert least > 1e-4, f"the rows of `{stream.name}` were not read, or their loss was not computed"
        anchors = {value for r in records for name, value in r["loss"].items() if name.startswith("anchor/")}
        assert anchors <= {0.0}, f"a penalty is not 0: {anchors}"

    def test_it_changes_training_and_resumes_bit_by_bit(
        self, tmp_path: Path, monkeypatch: "pytest.MonkeyPatch"
    ) -> None:
        """A run that is killed behind a checkpoint, prepared again and resumed equals an undisturbed one."""
        without_ray(monkeypatch)
        ctx = self.context(tmp_path, checkpoint_every=CHECKPOINT)
        whole, worker = loop.run(job := loop.job_of(ctx, tmp_path / "whole"))
        weights = loop.continuing(ctx, job, worker)
        self._changes_something(whole, weights)

        loop.run(loop.job_of(ctx, tmp_path / "killed"), until=KILLED)
        again = self.context(tmp_path, checkpoint_every=CHECKPOINT)
        killed = loop.job_of(again, tmp_path / "killed")
        assert killed.inputs == job.inputs, "prepared again, the stage has other inputs"
        assert loop.worker_of(killed).step == KILLED // CHECKPOINT * CHECKPOINT
        records, resumed = loop.run(killed)
        keys = ("step", "rows", "loss", "weight", "drift", "drift_stderr", "gradient_norm")
        for record, expected in zip(records, whole, strict=True):
            for key in keys:
                assert record.get(key) == expected.get(key), f"`{key}` of step {expected['step']} after a resume"
        assert resumed.control == worker.control, "the state of `control`"
        _assert_equal(loop.continuing(again, killed, resumed), weights)

    def _changes_something(self, records: list[dict[str, Any]], weights: dict[str, torch.Tensor]) -> None:
        """Check that the method trains, or continues with, something else than plain fine-tuning."""
        losses, plain = _plain(SHORT)
        moved = max(float((weights[name] - plain[name]).abs().max()) for name in plain)
        assert max(moved, *np.abs(np.subtract(_task(records), losses))) > VISIBLE, "with its options it does nothing"

    def test_an_adapted_model_starts_as_it_was(self, tmp_path: Path, monkeypatch: "pytest.MonkeyPatch") -> None:
        """What `adapt` adds is nothing before the first step, and its undoing gives a model with the same names."""
        without_ray(monkeypatch)
        ctx = self.context(tmp_path)
        if not self.method(ctx).overrides("adapt"):
            _skip("does not change the model")
        worker = loop.worker_of(job := loop.job_of(ctx))
        worker.export(job.export)
        exported, before = (loop.weights(ref) for ref in (replace(ctx.start, path=str(job.export)), ctx.stage_start))
        assert set(exported) == set(before), "the exported model has other tensors"
        if self.starts_unchanged:
            _assert_equal(exported, before)
            worker.train_step(loop.batch_of(job, 0), stop=False)
            losses = next(worker.read())["loss"]
            assert abs(losses[TASK] - _plain()[0][0]) < 1e-6, "the first loss is not plain training's"

    def test_the_plan_is_what_was_used(self, tmp_path: Path, monkeypatch: "pytest.MonkeyPatch") -> None:
        """Ratios, stream names and sampled tokens, stage after stage; what stage 1 sampled is not sampled again."""
        without_ray(monkeypatch)
        second = self.context(tmp_path)
        first = first_stage(second)
        first.view = replace(first.view, steps=SHORT, facts=_facts)
        method, known = self.method(second), set[str]()
        assert method.active(second.view), "the options do nothing in the second of two stages"
        for ctx in (first, second):
            acts = method.active(ctx.view)
            streams = loop.job_of(ctx).streams[1:]
            rows = sum(stream.rows_per_step for stream in streams)
            assert rows == (method.replay_ratio() * ctx.view.batch_rows if acts else 0), "`replay_ratio`"
            names = [stream.name for stream in streams]
            assert names[:1] in ([], [method.label]), f"its stream is called {names[0]}, not `{method.label}`"
            assert all(name.startswith(f"{method.label}-") for name in names[1:]), f"further streams are called {names}"
            asked = {digest(request.identity()): request.tokens for request in ctx.requests}
            tokens = sum(count for request, count in asked.items() if request not in known)
            known |= set(asked)
            planned = method.sampled_tokens(ctx.view) if acts else 0
            assert planned >= tokens, f"it samples {tokens} tokens in stage {ctx.view.number}, and plans {planned}"
            assert planned == tokens or not self.exact_tokens, f"planned: {planned} tokens, sampled: {tokens}"

    def test_unsuitable_stages_are_refused_in_one_sentence(self, tmp_path: Path) -> None:
        ctx = self.context(tmp_path)
        method = self.method(ctx)
        company = [[], [_build("lora")], [_build("weight_average")], [method.model_copy(update={"name": "again"})]]
        for name, view in rules.unsuitable(ctx.view).items():
            for others in company:
                rules.assert_sentence(method.check(view, others), f"{name}, next to {[o.label for o in others]}")
        assert method.check(ctx.view, []) is None, "the options are refused in the stage that they are tried in"

    def test_every_option_is_described(self, tmp_path: Path) -> None:
        rules.assert_described(type(self.method(self.context(tmp_path))))

    def test_unknown_options_are_refused(self, tmp_path: Path) -> None:
        rules.assert_refuses_unknown(type(self.method(self.context(tmp_path))), self.options)

    def test_it_imports_the_public_interface_alone_and_no_torch(self, tmp_path: Path) -> None:
        rules.assert_imports(type(self.method(self.context(tmp_path))))


class TwoRankConformance(MethodUnderTest):
    """The check that needs two processes."""

    def test_strategies_equal_ddp_or_are_refused(self, tmp_path: Path, monkeypatch: "pytest.MonkeyPatch") -> None:
        """20 losses of two ranks under fsdp and under ZeRO-2 equal those under ddp within 1e-6."""
        without_ray(monkeypatch)
        two_ranks.assert_equal(two_ranks.losses_of({"method": self.jobs(tmp_path)}, tmp_path)["method"])

    def jobs(self, folder: Path) -> dict[str, TrainJob]:
        """Return the method's job by the strategies that it does not refuse; `ddp` is one."""
        strategies: dict[str, dict[str, Any]] = {
            "ddp": {},
            "fsdp": {"strategy": "fsdp", "activation_checkpointing": True},
            "zero": {"strategy": "deepspeed", "zero_stage": 2},
        }
        jobs = {}
        for name, keys in strategies.items():
            # A large epsilon: Adam divides by the size of a gradient, and would make a step of a rounding error.
            ctx = self.context(folder, two_ranks.STEPS, workers=2, epsilon=1e-4, **keys)
            reason = self.method(ctx).check(ctx.view, [])
            rules.assert_sentence(reason, f"strategy {name}")
            if reason is None:
                jobs[name] = loop.job_of(ctx, folder / name)
            else:
                assert name != "ddp", f"refused under ddp: {reason}"
        return jobs


class MitigationConformance(InProcessConformance, TwoRankConformance):
    """All checks. Inherit from it in a test file, in a class whose name begins with `Test`."""


@cache
def _plain(steps: int = STEPS) -> Plain:
    """Train without any method, once a process."""
    with TemporaryDirectory() as folder:
        ctx = context(Path(folder), [])
        ctx.view = replace(ctx.view, steps=steps)
        records, weights = _run(ctx, loop.job_of(ctx))
    losses = _task(records)
    assert losses[-1] < losses[0], "plain training learns, so that a step which differs would show"
    return losses, weights


def _run(ctx: Offline, job: TrainJob) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    records, worker = loop.run(job)
    return records, loop.continuing(ctx, job, worker)


def _task(records: list[dict[str, Any]]) -> list[float]:
    return [record["loss"][TASK] for record in records]


def _assert_equal(weights: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(weights) == set(expected), "the models have other tensors"
    different = [name for name, value in weights.items() if not torch.equal(value, expected[name])]
    assert not different, f"weights that differ: {different}"


def _facts(source: str | None) -> ModelFacts:
    return ModelFacts(chat_template=True)


def _equal_losses(model: Any, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"nll": np.full(rows["ids"].shape, 2.0, np.float32)}


def _build(kind: str) -> Mitigation:
    mitigation: Mitigation = MITIGATIONS.build({"type": kind})
    return mitigation


def _skip(reason: str) -> None:
    import pytest

    pytest.skip(reason)
