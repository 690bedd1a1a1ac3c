"""A plan as text: facts, a table of stages, warnings."""

from continual.preflight.plan import Plan, StagePlan, remaining

COLUMNS = ("rows", "steps", "train_tokens", "replay_tokens", "sample_tokens")
TITLES = ("rows", "steps", "tokens", "replay tokens", "to sample")
TIMES = {"step_seconds": "s/step", "hours": "hours"}
"""Columns of what the training takes, which are there if it is known of some stage."""


def render(plan: Plan) -> str:
    """Return the plan as text without color codes."""
    status = {
        "new": "new",
        "begun": "begun, resumes where it stopped",
        "changed": "begun with another configuration, cannot be resumed like this",
        "running": f"is running ({plan.driver})",
        "done": "done, nothing is left to do",
    }
    lines = [f"{plan.name} ({plan.file}): {status[plan.status]}"]
    lines += [f"  {name:<11} {value}" for name, value in plan.facts.items()]
    lines += ["", *_table([*plan.stages, remaining(plan)])]
    lines += [line for stage in plan.stages if (line := _repeats(stage, plan.batch_rows))]
    if any(stage.estimated for stage in plan.stages):
        lines.append("  ~ estimated from a sample of the documents")
    if any(label.startswith("(") for stage in plan.stages for label in stage.mitigations):
        lines.append("  (in brackets: does nothing in that stage)")
    lines += [f"warning: {warning}" for warning in plan.warnings]
    return "\n".join(lines)


def _repeats(stage: StagePlan, batch_rows: int) -> str:
    """Return how often a stage reads its rows, "" if none of them twice."""
    if not stage.rows or not stage.steps or stage.steps * batch_rows <= stage.rows:
        return ""
    about = "~" if "rows" in stage.estimated else ""
    wanted = stage.steps * batch_rows
    return f"  {stage.name}: {about}{stage.rows:,} rows, {wanted:,} wanted: each {about}{wanted / stage.rows:.3g} times"


def _table(stages: list[StagePlan]) -> list[str]:
    times = TIMES if any(stage.step_seconds for stage in stages) else {}
    head = ["stage", *TITLES, *times.values(), "mitigation", "state"]
    body = [
        [
            f"{stage.number} {stage.name}" if stage.number else stage.name,
            *(_number(stage, column) for column in COLUMNS),
            *(_time(stage, column) for column in times),
            ", ".join(stage.mitigations) or ("-" if stage.number else ""),
            stage.state,
        ]
        for stage in stages
    ]
    widths = [max(len(cell) for cell in column) for column in zip(head, *body, strict=True)]
    sides = ["<", *">" * (len(COLUMNS) + len(times)), "<", "<"]
    formats = [f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True)]
    return [f"  {'  '.join(formats).format(*row)}".rstrip() for row in [head, *body]]


def _number(stage: StagePlan, column: str) -> str:
    value = getattr(stage, column)
    if value is None:
        return "?" if stage.number or column != "rows" else ""
    return f"{'~' if column in stage.estimated else ''}{value:,}"


def _time(stage: StagePlan, column: str) -> str:
    value = getattr(stage, column)
    if value is None:
        return "?" if stage.number or column == "hours" else ""
    about = "~" if column == "hours" and "steps" in stage.estimated else ""
    return f"{about}{value:.3g}"
