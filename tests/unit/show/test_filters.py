"""The usual questions are one filter each: every example of docs/report-and-mlflow.md, through MLflow's API."""

import re

import pytest

from tests.conftest import ROOT
from tests.kits.runs import KEPT, LOST, make_run, publish

EXAMPLES = {
    "tags.kind = 'sequence'": {"kept", "lost", "warm", "low-rank", "failed"},
    "tags.mitigation = 'context_free'": {"kept", "kept/2-sort", "warm", "warm/2-sort", "failed"},
    "tags.mitigation LIKE '%lora%'": {"low-rank", "low-rank/1-reversal", "low-rank/2-sort"},
    "metrics.forgetting < 0.05": {"low-rank"},
    "metrics.`score/sort` > 0.9 AND metrics.forgetting < 0.2": {"low-rank"},
    "params.`mitigation.0.temperature` = '1.3'": {"warm"},
    "params.`train.learning_rate` = '0.001'": {"kept", "lost", "warm", "low-rank", "failed"},
    "tags.seed = '4'": {"warm", "warm/1-reversal", "warm/2-sort"},
    "tags.kind = 'stage' AND tags.stage_name = 'sort'": {
        "kept/2-sort",
        "lost/2-sort",
        "warm/2-sort",
        "low-rank/2-sort",
    },
    "tags.start_model = 'START_MODEL_HASH'": {"kept", "lost", "warm", "low-rank", "failed"},
    "attributes.status = 'FAILED'": {"failed", "failed/1-reversal"},
}
"""Filter and the names of the runs that it finds."""


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    storage = tmp_path_factory.mktemp("filters")
    uri = f"sqlite:///{storage}/mlflow.db"
    lora = "mitigation=[{type: lora}]"
    arms = {
        "kept": (KEPT, []),
        "lost": (LOST, ["mitigation=[]"]),
        "warm": (LOST, ["mitigation.0.temperature=1.3", "seed=4"]),
        "low-rank": ([(0.0, 0.0), (1.0, 0.0), (1.0, 0.9375)], [lora]),
    }
    for name, (scores, overrides) in arms.items():
        _, folder = make_run(storage, name, scores, *overrides)
        assert publish(folder, uri, "filters").close(60) == 0
    _, folder = make_run(storage, "failed", KEPT, stages=0)
    assert publish(folder, uri, "filters", "FAILED").close(60) == 0
    return uri


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_filter_finds_what_it_says(uri: str, example: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("filters")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], example.replace("START_MODEL_HASH", "start0"))
    assert {run.info.run_name for run in found} == EXAMPLES[example]


def documented() -> set[str]:
    """The filters in the page's block of them: each line is a filter, at least two spaces, and what it finds."""
    block = re.search(
        r"^```\n(tags\.kind = 'sequence' .*?)^```",
        (ROOT / "docs/report-and-mlflow.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    return {re.split(r"\s{2,}", line)[0] for line in block[1].strip().splitlines()} if block else set()


def test_every_documented_filter_is_tried() -> None:
    assert documented() == set(EXAMPLES)


def test_search_runs_takes_them_too(uri: str) -> None:
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        frame = mlflow.search_runs(
            experiment_names=["filters"], filter_string="tags.kind = 'sequence' AND metrics.forgetting < 0.2"
        )
    finally:
        mlflow.set_tracking_uri(before)
    found = dict(zip(frame["tags.mlflow.runName"], frame["metrics.forgetting"], strict=True))
    assert found == {"kept": 0.125, "low-rank": 0.0}
