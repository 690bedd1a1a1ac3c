"""What a sequence takes of a machine: CPUs, GPUs, and what does not fit."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.config.schema import Sequence, Train
from continual.errors import ConfigurationError
from continual.preflight.resources import check_resources, demands, local_gpus, uses_sampling
from continual.training.resources import worker_cpus
from tests.kits.project import sequence


def fit(**train: Any) -> Sequence:
    return Sequence.model_validate(sequence(train={"batch_tokens": 256, "row_tokens": 32, **train}))


def test_what_fits_a_machine() -> None:
    check_resources(fit(workers=2), 2, 0)
    check_resources(fit(workers=2, cpus_per_worker=0.5), 2, 0)
    check_resources(fit(workers=8, cpus_per_worker=4), None, None)
    with pytest.raises(ConfigurationError, match=r"cpus_per_worker: 0\.33`"):
        check_resources(fit(workers=3, cpus_per_worker=1), 2, 0)
    with pytest.raises(ConfigurationError, match="there are 1"):
        check_resources(fit(workers=2, gpus_per_worker=1), 8, 1)
    with pytest.raises(ConfigurationError, match="at least 2 CPUs"):
        check_resources(fit(), 1, 0)
    assert [demand.phase for demand in demands(fit())] == ["training", "sampling"]
    assert [demand.phase for demand in demands(fit().model_copy(update={"mitigation": []}))] == ["training"]


def test_evaluators_count_and_keep_their_gpus_during_training_if_they_score_inside_it() -> None:
    def taken(**evaluate: Any) -> dict[str, float]:
        made = Sequence.model_validate(sequence(evaluate={"gpus": 0.5, **evaluate}))
        return {demand.phase: demand.gpus for demand in demands(made)}

    assert taken(replicas=3) == {"training": 0, "sampling": 0, "evaluation": 1.5}
    assert taken(replicas=3, every=5) == {"training": 1.5, "sampling": 0, "evaluation": 1.5}
    made = Sequence.model_validate(sequence(evaluate={"gpus": 0.5, "replicas": 3, "every": 5}))
    check_resources(made, 8, 2)
    with pytest.raises(
        ConfigurationError, match=r"training takes 1\.5 GPUs \(1\.5 of them to evaluate\), but there are 1"
    ):
        check_resources(made, 8, 1)


def test_a_sequence_without_mitigations_does_not_sample() -> None:
    assert uses_sampling(fit())
    assert not uses_sampling(fit().model_copy(update={"mitigation": []}))


@given(workers=st.integers(1, 64), cpus=st.integers(2, 256))
def test_workers_leave_a_cpu_free(workers: int, cpus: int) -> None:
    share = worker_cpus(Train(workers=workers), cpus)
    assert share > 0
    assert share * workers <= cpus - 1 + 0.005 * workers + 1e-9 or share == 0.05  # rounded to hundredths


def test_gpus_are_counted_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, count in (("", 0), ("-1", 0), ("0", 1), ("0,1,3", 3)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
        assert local_gpus() == count
