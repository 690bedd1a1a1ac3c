"""What is told of other libraries' exceptions; the texts are those of ray 2.60, vllm 0.29 and huggingface_hub 1."""

import pytest

from continual.errors import ConfigurationError, ContinualError, describe, unwrap, with_fix

ADVICE = (
    "Failed to apply UDF transform after 1/1 attempts (total backoff 0.0s).\n"
    "To change retry attempts, backoff, or which errors are retried, configure `ray.data.DataContext.get_current()` "
    "(`retried_io_errors` for I/O; `retried_map_errors` and `max_map_retries` for any task) if you believe this to be "
    "transient."
)
HEAD = "\x1b[36mray::ReadRange->MapBatches(bad)()\x1b[39m (pid=4890, ip=192.0.2.2)"
CAUSE = "\n\nThe above exception was the direct cause of the following exception:\n\n"
CONTEXT = "\n\nDuring handling of the above exception, another exception occurred:\n\n"
FRAME = '  File "/data/own.py", line 17, in bad\n    raise error\n    ^^^^^^^^^^^'
USER_CODE = f"{HEAD}\nray.exceptions.UserCodeException: UDF failed to process a data block.\n{ADVICE}"


def in_a_map_task(raised: str) -> str:
    """Return Ray's text of an exception in a Ray Data task."""
    return f"{HEAD}\n{FRAME}\n{raised}{CAUSE}{USER_CODE}"


LOW = (
    "6 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, ID: edf3) was "
    "22.60GB used / 23.54GB limit (0.960023)\nOOM kill reason: exceeded threshold\nPID\tMEM(GB)\tCOMMAND\n"
    "12\t4.13\tray::Replica.sample"
)


class Carrier(Exception):
    """An exception of Ray that carries another as `cause`."""

    def __init__(self, text: str, cause: BaseException | None = None):
        super().__init__(text)
        self.cause = cause


class WorkersFailed(Exception):
    """Like `ray.train.WorkerGroupError`."""

    def __init__(self, failure: Exception):
        super().__init__("Training failed due to worker errors:\n[Rank 0 Error Snippet]:")
        self.worker_failures = {0: failure}


class ControllerFailed(Exception):
    """Like `ray.train.ControllerError`."""

    def __init__(self, failure: Exception):
        super().__init__("Training failed due to controller error:")
        self.controller_failure = failure


class ActorDiedError(Exception):
    pass


class SystemException(Exception):
    """Like the empty exception that Ray Data names as a cause."""


class UserCodeException(Exception):
    """Like the exception that Ray Data puts around the user's."""


def chained(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


DIED = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: TrainController\n\tactor_id: f73d\n"
    "\tpid: 6688\n\tnamespace: db94\nThe actor is dead because its worker process has died. Worker exit type: "
    "SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of file."
)
CREATION = f"The actor died because of an error raised in its creation task, {HEAD}\n           ^^^^^\n{FRAME}\n"
NESTED = (
    f"ray.data.exceptions.SystemException{CAUSE}\x1b[36mray::nested()\x1b[39m (pid=1, ip=1)\n{FRAME}\n"
    f"ray.exceptions.RayTaskError(ValueError): {HEAD}\n{FRAME}\nValueError: first own line\na hint\n{ADVICE}"
)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        # Ray Data, whose text alone is left
        (Carrier(in_a_map_task("ValueError: first\nTo see more, read the docs")), "ValueError: first"),
        (Carrier(in_a_map_task("KeyError: 'answer'"), UserCodeException(f"UDF failed.\n{ADVICE}")),
         "KeyError: 'answer'"),
        (Carrier(in_a_map_task("own.errors.NoLuck: spilled")), "NoLuck: spilled"),
        (Carrier(in_a_map_task("StopIteration")), "StopIteration"),
        (Carrier(in_a_map_task(f"OSError: no file{CAUSE}{HEAD}\n{FRAME}\nRuntimeError: wrapping")), "OSError: no file"),
        (Carrier(in_a_map_task(f"KeyError: 1{CONTEXT}{FRAME}\nValueError: no such key")), "ValueError: no such key"),
        (Carrier(NESTED), "ValueError: first own line"),
        # Ray Data, which has put its advice into the exception's first argument
        (Carrier("a text", ValueError(f"first own line\nsecond line\n{ADVICE}")), "ValueError: first own line"),
        (Carrier("a text", KeyError(f"foo\n{ADVICE}")), "KeyError: 'foo'"),
        (Carrier("a text", ContinualError(f"rows: the stored file is damaged\n{ADVICE}")),
         "rows: the stored file is damaged"),
        (Carrier("a text", ConfigurationError(f"train\n{ADVICE}", "no", "yes")), "train: no; yes"),
        (
            UnicodeDecodeError(f"utf-8\n{ADVICE}", b"a\xff", 1, 2, "invalid start byte"),
            "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 1: invalid start byte",
        ),
        # tasks, actors and Ray Train
        (Carrier(f"{HEAD}\n{FRAME}\nValueError: in\na hint", ValueError("in\na hint")), "ValueError: in"),
        (ActorDiedError(f"{CREATION}RuntimeError: constructor\nCheck out the docs\n"), "RuntimeError: constructor"),
        (WorkersFailed(Carrier(f"Traceback (most recent call last):\n{FRAME}\nValueError: x: y\nz")),
         "ValueError: x: y"),
        (ControllerFailed(ActorDiedError(DIED)),
         "a process of the run (TrainController, process 6688) was killed, or the machine ran out of memory"),
        (RuntimeError("The worker died unexpectedly while executing this task. Check python-core-worker-*.log files"),
         "a process of the run was killed, or the machine ran out of memory"),
        (WorkersFailed(RuntimeError(LOW)),
         "with 22.60GB of 23.54GB used, Ray ended a process of the run because memory ran low"),
        # other libraries
        (RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): "
                      "{'EngineCore': -9}"),
         "vLLM's engine did not start: its process was killed, or the machine ran out of memory"),
        (RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}"),
         "vLLM's engine did not start: it failed"),
        (OSError("We couldn't connect to 'https://huggingface.co'.\nCheck out the docs at https://hf.co"),
         "OSError: We couldn't connect to 'https://huggingface.co'."),
        (ValueError("\n  first\n"), "ValueError: first"),
        (chained(ValueError("wrapping"), KeyError("inner")), "KeyError: 'inner'"),
        (chained(ValueError("told"), SystemException()), "ValueError: told"),
        (chained(ValueError("told"), RuntimeError()), "ValueError: told"),
        (chained(ValueError(), RuntimeError()), "RuntimeError"),
    ],
)  # fmt: skip
def test_the_first_line_of_the_innermost_exception_is_told(error: Exception, sentence: str) -> None:
    assert describe(error) == sentence


def test_our_sentence_is_found_in_a_text() -> None:
    told = "continual.errors.types.ConfigurationError: stages.0.data: qa.jsonl line 30: a null; put text there"
    error = unwrap(Carrier(in_a_map_task(f"TypeError: no text{CAUSE}{FRAME}\n{told}")))
    assert isinstance(error, ConfigurationError)
    assert str(error) == "stages.0.data: qa.jsonl line 30: a null; put text there"
    other = unwrap(Carrier(in_a_map_task("continual.store.lock.Locked: another driver works on this run")))
    assert type(other) is ContinualError
    assert str(other) == "another driver works on this run"


def test_our_exception_is_told_whatever_it_was_raised_from() -> None:
    ours = chained(ConfigurationError("a", "wrong", "write 1"), ValueError("inner"))
    assert unwrap(Carrier("a text", chained(RuntimeError("outer"), ours))) is ours
    assert describe(Carrier("a text", ours)) == "a: wrong; write 1"


def test_a_circle_of_causes_ends() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert describe(first) == "ValueError: second"


def test_what_to_do_when_memory_ran_low() -> None:
    told = with_fix(f"training failed after step 3: {describe(WorkersFailed(RuntimeError(LOW)))}")
    assert told.endswith("or use a machine with more memory, then run the same command again to resume")
