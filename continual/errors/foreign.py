"""What exceptions of other libraries say: the first line of the innermost one, from objects or from Ray's text."""

import re
from collections.abc import Iterator

from continual.errors.types import ConfigurationError, ContinualError

ADVICE = re.compile(
    r"(?:\n|\\n)Failed to [^\n]*? attempts \(total backoff.*?if you believe this to be transient\.", re.S
)
"""What Ray Data appends to the first argument of an exception (ray 2.60, data/_internal/util.py)."""
COLORS = re.compile(r"\x1b\[[0-9;]*m")
CAUSE = "The above exception was the direct cause of the following exception:"
CONTEXT = "During handling of the above exception, another exception occurred:"
RAISED = re.compile(r"(?P<type>[A-Za-z_][\w.]*)(?:\(\w+\))?(?:: ?(?P<text>.*))?$")
"""The line of a traceback that names the exception."""
OURS = re.compile(r"continual\.(?:\w+\.)*(?P<type>[A-Z]\w*)")
PERHAPS_MEMORY = "was killed, or the machine ran out of memory"
KILLED = f"{{what}} {PERHAPS_MEMORY}"
LOW = re.compile(r"killed due to the node running low on memory.*? was (?P<used>\S+) used / (?P<all>\S+) limit", re.S)
"""Ray's text where it ended processes before the operating system would."""
MEMORY_LOW = "Ray ended a process of the run because memory ran low"
CLASS = re.compile(r"class_name: \S*?(\w+)$", re.MULTILINE)
PROCESS = re.compile(r"\bpid: (\d+)")
ENGINE = re.compile(r"Engine core initialization failed\..*?\{(?:'[^']*': (?P<code>-?\d+))?", re.S)


def causes(error: BaseException) -> list[BaseException]:
    """Return the exceptions behind `error`, the innermost last; wrappers in which Ray carries another are left out.

    An exception that comes from another process has lost what it was raised from: only the text of the wrapper has
    that. Such a wrapper is the last.
    """
    chain: list[BaseException] = []
    seen: set[int] = set()
    current: BaseException | None = error
    wrapper: BaseException | None = None
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        carried = _carried(current)
        if carried is None:
            chain.append(current)
            # Ray Data gives the exceptions that it passes on an empty `SystemException` as their cause.
            following = current.__cause__
            carried = None if type(following).__name__ == "SystemException" else following
            wrapper = None if carried else wrapper
        else:
            wrapper = current
        current = carried
    return [*chain, wrapper] if wrapper is not None and CAUSE in str(wrapper) else chain


def _carried(error: BaseException) -> BaseException | None:
    """Return the exception that one of Ray's carries, None if it carries none.

    Where Ray Data puts its own exception around the user's, only the carrier's text tells of that.
    """
    failures = getattr(error, "worker_failures", None) or {}
    for carried in (getattr(error, "cause", None), getattr(error, "controller_failure", None), *failures.values()):
        if isinstance(carried, BaseException) and type(carried).__name__ != "UserCodeException":
            return carried
    return None


def own_line(error: BaseException) -> str:
    """Return the type and the first line of an exception's own text; "" if it has none."""
    text = clean(str(error))
    if plain := _in_plain_words(text):
        return plain
    if _is_traceback(text):
        raised = next(iter(_raised(text)), None)
        return ": ".join(part for part in raised if part) if raised else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else ""


def ours_in_text(error: BaseException) -> ContinualError | None:
    """Return the exception of ours whose traceback is the text of `error`, None if it is not such a text.

    Of several the outermost: it says more than what it was raised from.
    """
    text = clean(str(error))
    found = [(OURS.fullmatch(name), line) for name, line in _raised(text, whole=True)] if _is_traceback(text) else []
    for ours, line in reversed(found):
        if ours:
            return ConfigurationError("", line) if ours["type"] == "ConfigurationError" else ContinualError(line)
    return None


def clean(text: str) -> str:
    """Return a text without colors and without Ray Data's advice."""
    return ADVICE.sub("", COLORS.sub("", text))


def _is_traceback(text: str) -> bool:
    return "\n  File " in text or "Traceback (most recent call last)" in text or "ray::" in text


def _in_plain_words(text: str) -> str | None:
    """Return in plain words what some texts of Ray and vLLM say at length."""
    if low := LOW.search(text):
        return f"with {low['used']} of {low['all']} used, {MEMORY_LOW}"
    if engine := ENGINE.search(text):
        code = int(engine["code"] or 0)
        return f"vLLM's engine did not start: {KILLED.format(what='its process') if code < 0 else 'it failed'}"
    if "died unexpectedly" in text or "worker process has died" in text:
        name, process = CLASS.search(text), PROCESS.search(text)
        which = f"{name[1]}, process {process[1]}" if name and process else ""
        return KILLED.format(what=f"a process of the run ({which})" if which else "a process of the run")
    return None


def _raised(text: str, whole: bool = False) -> Iterator[tuple[str, str]]:
    """Yield type and first line of the exceptions in a traceback, the innermost first; of Ray's own there is none.

    An exception that was handled when another was raised is left out, unless the other names it as its cause. `whole`:
    with the types' modules.
    """
    for part in text.split(CAUSE):
        awaited = True
        for line in part.rpartition(CONTEXT)[2].splitlines():
            if line.startswith(("  File ", "Traceback (most")) or "ray::" in line:
                awaited = True
            elif awaited and line[:1].strip() and not line.startswith("ray.") and (match := RAISED.match(line)):
                awaited = False
                name = match["type"] if whole else match["type"].rpartition(".")[2]
                yield name, (match["text"] or "").strip()
