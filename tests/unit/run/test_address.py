"""A cluster that does not answer is told within ten seconds, by a sentence with its address and the fix."""

import http.server
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray._raylet
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from continual.errors import ContinualError
from continual.run import address
from continual.run.address import check_address

RAYLET: Any = ray._raylet
"""Ray's compiled module; it has no type stubs."""


@pytest.fixture
def closed() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def silent() -> Iterator[int]:
    """Accepts connections and never answers, as a black hole or a stopped process does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def web() -> Iterator[int]:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def told(place: str) -> str:
    begun = time.monotonic()
    with pytest.raises(ContinualError) as error:
        check_address(place)
    assert time.monotonic() - begun < 10
    sentence = str(error.value)
    assert f"RAY_ADDRESS={place}" in sentence
    assert "unset RAY_ADDRESS" in sentence
    return sentence


def test_a_closed_port(closed: int) -> None:
    assert "refused" in told(f"127.0.0.1:{closed}")


def test_a_port_that_never_answers(silent: int) -> None:
    assert "nothing answered" in told(f"127.0.0.1:{silent}")


def test_a_port_that_speaks_http(web: int) -> None:
    assert "not the head of a Ray cluster" in told(f"127.0.0.1:{web}")


class Head(gcs_service_pb2_grpc.NodeInfoGcsServiceServicer):
    """Answers as Ray's control service, or refuses as one that wants a token."""

    def __init__(self, code: grpc.StatusCode):
        self.code = code

    def CheckAlive(self, request: Any, context: Any) -> Any:
        if self.code != grpc.StatusCode.OK:
            context.abort(self.code, "no")
        return getattr(gcs_service_pb2, "CheckAliveReply")()  # noqa: B009 (made when imported)


def serving(service: Head | None) -> tuple[grpc.Server, int]:
    server = grpc.server(ThreadPoolExecutor(1))
    if service is not None:
        gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


@pytest.mark.parametrize("service", [None, Head(grpc.StatusCode.UNIMPLEMENTED), Head(grpc.StatusCode.INTERNAL)])
def test_a_service_of_grpc_that_is_no_head(service: Head | None) -> None:
    """As Ray's own client port, a raylet, or any other server that speaks HTTP/2."""
    server, port = serving(service)
    assert "not the head of a Ray cluster" in told(f"127.0.0.1:{port}")
    server.stop(None)


def test_a_head() -> None:
    server, port = serving(Head(grpc.StatusCode.OK))
    check_address(f"127.0.0.1:{port}")
    check_address(f"localhost:{port}")
    server.stop(None)


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Gives this machine a token for one test, or none; Ray reads it once and keeps it."""
    loader = RAYLET.AuthenticationTokenLoader.instance()

    def give(value: str) -> None:
        monkeypatch.setenv("RAY_AUTH_TOKEN", value) if value else monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
        loader.reset_cache()

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "kept")  # so that monkeypatch takes away what Ray sets
    monkeypatch.delenv("RAY_AUTH_MODE")
    yield give
    monkeypatch.undo()
    loader.reset_cache()
    RAYLET.Config.initialize("")


class Asking(Head):
    """Answers those who send its token."""

    def __init__(self, token: str):
        self.token = token

    def CheckAlive(self, request: Any, context: Any) -> Any:
        sent = dict(context.invocation_metadata()).get("authorization")
        self.code = grpc.StatusCode.OK if sent == f"Bearer {self.token}" else grpc.StatusCode.UNAUTHENTICATED
        return super().CheckAlive(request, context)


@pytest.mark.parametrize(("mine", "mode", "let_in"), [
    ("a" * 64, None, True),
    ("a" * 64, "token", True),
    ("a" * 64, "disabled", False),
    ("b" * 64, None, False),
    ("", None, False),
])  # fmt: skip
def test_a_head_that_asks_for_a_token(
    token: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, mine: str, mode: str | None, let_in: bool
) -> None:
    token(mine)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    RAYLET.Config.initialize("")
    server, port = serving(Asking("a" * 64))
    if let_in:
        check_address(f"127.0.0.1:{port}")
        assert os.environ["RAY_AUTH_MODE"] == "token"
    else:
        with pytest.raises(ContinualError, match=f"RAY_ADDRESS=127.0.0.1:{port} asks for its token; .*get-auth-token"):
            check_address(f"127.0.0.1:{port}")
    server.stop(None)


def test_a_name_whose_look_up_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(address, "MOST_SECONDS", 2.0)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: over.wait(60))
    assert "nothing answered" in told("head.example:6379")
    over.set()


def test_a_name_that_nobody_has() -> None:
    told("no-such-host.invalid:6379")


@pytest.mark.parametrize(
    "place", ["http://127.0.0.1:8265", "127.0.0.1", "127.0.0.1:http", ":6379", "a:99999", "ray://127.0.0.1:10001"]
)
def test_what_is_no_address(place: str) -> None:
    told(place)


def test_auto_is_left_to_ray() -> None:
    check_address("auto")
