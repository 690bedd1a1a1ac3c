"""Never a deadlock: what a plan holds at one time is reserved in Ray, in the order of a run, or the plan is refused."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from continual.config.schema import Sequence
from continual.errors import ConfigurationError
from continual.preflight.delivery import check_placement, chosen_delivery, scores_beside, training_cpus, workers_stay
from continual.preflight.resources import scoring
from continual.training.resources import READ_CPUS, worker_cpus

pytestmark = pytest.mark.slow
MOST_CPUS, MOST_GPUS = 8, 4
WAIT_SECONDS = 15
TEXT = {"name": "old", "data": {"type": "text", "path": "old.txt"}}
ROWS = {"type": "python", "function": "benchmarks.arithmetic.tasks:rows", "arguments": {"task": "sort"}}


class Rehearsal:
    """Reserves what the processes of a run take, as bundles of the resources `rehearsed_cpu` and `rehearsed_gpu`."""

    def __init__(self, cpus: int, gpus: int):
        self.ballast = self.bundles(1, MOST_CPUS - cpus, MOST_GPUS - gpus)

    @staticmethod
    def bundles(count: int, cpus: float, gpus: float) -> list[dict[str, float]]:
        each = {"rehearsed_cpu": round(cpus, 4), "rehearsed_gpu": round(gpus, 4)}
        return [bundle for bundle in [{name: value for name, value in each.items() if value}] if bundle] * count

    @contextmanager
    def hold(self, what: str, count: int, cpus: float, gpus: float = 0.0) -> Iterator[None]:
        """Wait for `count` processes with so many CPUs and GPUs each; they end with the block."""
        with self._placed(what, self.bundles(count, cpus, gpus)):
            yield

    @contextmanager
    def _placed(self, what: str, bundles: list[dict[str, float]]) -> Iterator[None]:
        from ray.util import placement_group, remove_placement_group

        if not bundles:
            yield
            return
        group = placement_group(bundles)
        try:
            assert group.wait(WAIT_SECONDS), f"{what} waits forever for {bundles}"
            yield
        finally:
            remove_placement_group(group)

    def run(self, sequence: Sequence, cpus: int, gpus: int) -> None:
        """Run two stages, each of which samples, trains and is scored."""
        train, generate, evaluate = sequence.train, sequence.generate, sequence.evaluate
        delivery = chosen_delivery(sequence, cpus, gpus).delivery
        stay = workers_stay(sequence, delivery, cpus, gpus)
        beside = scores_beside(sequence, delivery, cpus, gpus).beside
        share = worker_cpus(train, training_cpus(sequence, delivery, cpus))
        with ExitStack() as run, ExitStack() as evaluators, ExitStack() as workers:
            run.enter_context(self._placed("the rest of the machine", self.ballast))
            with self.hold("reading the tasks", 1, 1.0):
                pass
            started = False
            for stage in (0, 1, 2):
                if stage:
                    with self.hold(f"reading a source of stage {stage}", 1, 1.0):
                        pass
                    with ExitStack() as engines:
                        engines.enter_context(
                            self.hold(
                                f"sampling of stage {stage}",
                                generate.replicas,
                                generate.cpus_per_replica,
                                generate.gpus_per_replica,
                            )
                        )
                        teacher = scoring(sequence)
                        if delivery == "store":
                            engines.close()
                            if teacher:
                                with self.hold(
                                    f"the teacher of stage {stage}", generate.replicas, teacher.cpus, teacher.gpus
                                ):
                                    pass
                        else:
                            if teacher:
                                name = f"the teacher beside stage {stage}"
                                engines.enter_context(self.hold(name, 1, teacher.cpus, teacher.gpus))
                            with self.hold(f"reading another source of stage {stage}", 1, 1.0):
                                pass
                        if not started:
                            name, each = f"training of stage {stage}", (share, train.gpus_per_worker)
                            workers.enter_context(self.hold(name, train.workers, *each))
                            started = True
                        with self.hold(f"the readers of stage {stage}", 1, READ_CPUS):
                            pass
                        evaluators.close()  # of the stage before, at the latest
                    if not stay:
                        workers.close()
                        started = False
                evaluators.enter_context(
                    self.hold(f"scoring of stage {stage}", evaluate.replicas, 0.0, evaluate.reserved_gpus)
                )
                if not beside:
                    evaluators.close()


@pytest.fixture(scope="module")
def resources(local_ray: None) -> None:
    import ray

    assert ray.cluster_resources()["rehearsed_cpu"] == MOST_CPUS
    assert ray.cluster_resources()["rehearsed_gpu"] == MOST_GPUS


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cpus=st.integers(1, MOST_CPUS), gpus=st.integers(0, MOST_GPUS), workers=st.integers(1, 4),
    each=st.sampled_from([None, None, 0.5, 1, 2]), worker_gpus=st.sampled_from([0, 0.5, 1]),
    replicas=st.integers(1, 3), engine_cpus=st.sampled_from([0.5, 1, 2]), engine_gpus=st.sampled_from([0, 0.5, 1]),
    delivery=st.sampled_from(["auto", "stream", "store"]), overlap=st.sampled_from(["auto", True, False]),
    evaluator_gpus=st.sampled_from([0, 0.5, 1]), evaluators=st.integers(1, 2),
    teacher=st.sampled_from(["live", "cached"]),
)  # fmt: skip
def test_every_plan_runs_or_is_refused(
    resources: None, cpus: int, gpus: int, workers: int, each: float | None, worker_gpus: float, replicas: int,
    engine_cpus: float, engine_gpus: float, delivery: str, overlap: str | bool, evaluator_gpus: float,
    evaluators: int, teacher: str,
) -> None:  # fmt: skip
    sequence = Sequence.model_validate(
        {
            "name": "s",
            "model": {
                "type": "python", "build": "benchmarks.arithmetic.model:build",
                "tokenizer": "benchmarks.arithmetic.tokenizer:build",
            },
            "stages": [{"name": "one", "data": ROWS, "steps": 1}, {"name": "two", "data": ROWS, "steps": 1}],
            "mitigation": [{"type": "context_free", "samples": 64, "teacher": teacher}],
            "train": {"workers": workers, "cpus_per_worker": each, "gpus_per_worker": worker_gpus},
            "generate": {
                "replicas": replicas, "cpus_per_replica": engine_cpus, "gpus_per_replica": engine_gpus,
                "delivery": delivery,
            },
            "evaluate": {"texts": [TEXT], "overlap": overlap, "gpus": evaluator_gpus, "replicas": evaluators},
        }
    )  # fmt: skip
    try:
        check_placement(sequence, cpus, gpus)
    except ConfigurationError as error:
        assert str(error)
        return
    Rehearsal(cpus, gpus).run(sequence, cpus, gpus)
