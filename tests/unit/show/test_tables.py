"""The tables of a run: matrix, figures, what to type next."""

from pathlib import Path
from typing import Any

from continual.forgetting import Score, StageScores, matrix_as_json
from continual.show.tables import closing, drift_lines, figures_lines, matrix_text

MATRIX = [
    StageScores(0, "start", {"a": Score(0.0, 0.001), "b": Score(-1.3, 0.0)}),
    StageScores(1, "first", {"a": Score(0.99, 0.01), "b": Score(-1.3, 0.0)}),
    StageScores(2, "second", {"a": Score(0.97, 0.01), "b": Score(-2.25, 0.0)}),
]
SUMMARY: dict[str, Any] = {
    "name": "demo", "status": "done", "stages": ["first", "second"], "tasks": ["a", "b"],
    "matrix": matrix_as_json(MATRIX),
    "average_score": 0.98, "forgetting": 0.02, "forgetting_old": None, "backward_transfer": -0.02,
    "forward_transfer": 0.0, "learning_accuracy": 0.99, "stderr": {"forgetting": 0.014, "forgetting_old": None},
    "generated_tokens": 12345, "reused_tokens": 0, "trained_tokens": 99, "seconds": {"train": 12.4},
    "checkpoints": {"first": "/m/1", "second": "/m/2"},
}  # fmt: skip


def test_the_matrix_as_a_table() -> None:
    assert matrix_text(MATRIX, ["a", "b"], [[], [], ["b"]]).splitlines() == [
        "  stage     a             b",
        "  0 start   0.000 ±0.001  -1.300 ±0.000",
        "  1 first   0.990 ±0.010  -1.300 ±0.000",
        "  2 second  0.970 ±0.010  -2.250 ±0.000 ↓",
    ]
    colored = matrix_text(MATRIX, ["a", "b"], [[], [], ["b"]], color=True)
    assert colored.count("\x1b[31m") == 1
    assert "\x1b[31m-2.250 ±0.000 ↓\x1b[0m" in colored
    missing = [StageScores(0, "start", {})]
    assert matrix_text(missing, ["a"]).splitlines()[1].split() == ["0", "start", "-"]


def test_the_figures() -> None:
    lines = {line[2:20].strip(): line[21:] for line in figures_lines(SUMMARY)}
    assert lines["forgetting"] == "0.020 ±0.014"
    assert lines["forgetting, old"] == "-"
    assert lines["average score"] == "0.980"
    assert lines["backward transfer"] == "-0.020"
    assert lines["tokens"] == "12,345 sampled, 0 reused, 99 trained (with loss)"
    assert lines["time"] == "train 12 s"


def test_the_end_of_a_run_says_what_to_type_next(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    text = closing(SUMMARY, folder)
    assert f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/runs/mlflow.db" in text
    assert "/m/2" in text
    assert "\x1b" not in text
    (folder / "config.yaml").write_text("track: {enabled: true, uri: 'http://host'}")
    assert "mlflow ui --backend-store-uri http://host" in closing(SUMMARY, folder)
    (folder / "config.yaml").write_text("track: {enabled: false, uri: null}")
    assert "mlflow" not in closing(SUMMARY, folder)


def test_the_drift_of_the_last_model_from_both_models_and_of_a_first_stage_from_one() -> None:
    def of(stage: int, drift: float, error: float | None) -> dict[str, Any]:
        return {"stage": stage, "name": "", "drift": drift, "stderr": error}

    start, own = {"c4": [of(0, 0.0, 0.0), of(1, 0.25, 0.01)]}, {"c4": [of(1, 0.25, 0.01)]}
    first = ["  drift              0.250 ±0.010 nats/token from the start model, on c4"]
    assert drift_lines({"drift": start}) == drift_lines({"drift": start, "drift_stage": own}) == first
    start["c4"].append(of(2, 0.5, None))
    own["c4"].append(of(2, 0.125, 0.02))
    assert drift_lines({"drift": start, "drift_stage": own}) == [
        "  drift              0.500 nats/token from the start model, on c4",
        "  drift              0.125 ±0.020 nats/token from the last stage's start, on c4",
    ]
