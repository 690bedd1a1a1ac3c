"""What a step of training at real sizes takes, by the plan's cost model: operations, and seconds as it assumes them.

`python -m benchmarks.throughput.operations` prints the table of the manual; nothing in it is measured. For small shapes
`tests/unit/preflight/test_training_time.py` compares the operations with torch's own counter.
"""

from benchmarks.throughput.memory import CASES, adapter_of, sizes_of
from benchmarks.throughput.tracked import Case
from continual.config.schema import Train
from continual.preflight.gpus import peak
from continual.preflight.operations import step_operations
from continual.preflight.training_time import EFFICIENCY

GPU = "NVIDIA H100 80GB HBM3"


def planned(case: Case, rows: float | None = None) -> float:
    """Return the operations of a step of all workers; a live teacher reads all rows. `rows`: others than all."""
    train = Train.model_validate(case.train)
    rows = train.batch_rows if rows is None else rows
    live = [rows] if case.teacher else []
    return step_operations(sizes_of(case.model), train, rows, live, adapter_of(case))


def table() -> str:
    """Return the table of the cases of `benchmarks.throughput.memory`."""
    speed = EFFICIENCY * (peak(GPU, "bfloat16") or 0.0)
    titles = ("model, GPUs, strategy", "tokens per step", "operations", "seconds per step", "tokens per second and GPU")
    lines = [f"| {' | '.join(titles)} |", "|---|---|---|---|---|"]
    for case in CASES:
        tokens, operations = int(case.train["batch_tokens"]), planned(case)
        seconds = operations / (speed * case.workers)
        lines.append(
            f"| {case.name} | {tokens:,} | {operations:.2e} | {seconds:.2f} | {tokens / seconds / case.workers:,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
