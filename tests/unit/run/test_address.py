"""A cluster that does not answer is told within ten seconds, by a sentence with its address and the fix."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from continual.errors import ContinualError
from continual.run.address import check_address


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


def told(address: str) -> str:
    begun = time.monotonic()
    with pytest.raises(ContinualError) as error:
        check_address(address)
    assert time.monotonic() - begun < 10
    sentence = str(error.value)
    assert f"RAY_ADDRESS={address}" in sentence
    assert "unset RAY_ADDRESS" in sentence
    return sentence


def test_a_closed_port(closed: int) -> None:
    assert "refused" in told(f"127.0.0.1:{closed}")


def test_a_port_that_never_answers(silent: int) -> None:
    assert "nothing answered" in told(f"127.0.0.1:{silent}")


def test_a_port_that_speaks_http(web: int) -> None:
    assert "not Ray" in told(f"127.0.0.1:{web}")


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "127.0.0.1", "127.0.0.1:http", ":6379", "a:99999"])
def test_what_is_no_address(address: str) -> None:
    told(address)


def test_auto_is_left_to_ray() -> None:
    check_address("auto")
