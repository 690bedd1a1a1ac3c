"""The address of a Ray cluster, asked before Ray connects: Ray itself waits for minutes for what never answers."""

import os
import socket

from continual.errors import ContinualError

CONNECT_SECONDS, ANSWER_SECONDS = 4.0, 4.0
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""How a gRPC client begins; a server answers with its settings, a frame of type 4."""
FIX = "start the cluster, name `host:port` of its head (`ray start --head` prints it), or unset RAY_ADDRESS"


def check_address(address: str) -> None:
    """Return within ten seconds if a cluster may be there; raise ContinualError if none answers.

    `auto` and `local` are left to Ray, which looks for these on this machine.
    """
    if address in ("auto", "local"):
        return
    if "://" in address:
        scheme = address.partition("://")[0]
        raise _none(address, f"`{scheme}://` is not how a driver connects")
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise _none(address, "that is not `host:port`")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS) as connection:
            connection.settimeout(ANSWER_SECONDS)
            if os.environ.get("RAY_USE_TLS", "0") in ("", "0"):
                connection.sendall(GREETING)
                answer = connection.recv(9)
                if answer[3:4] != b"\x04":
                    raise _none(address, "what listens there is not Ray")
    except TimeoutError:
        raise _none(address, "nothing answered within seconds") from None
    except OSError as error:
        raise _none(address, (error.strerror or str(error)).lower()) from None


def _none(address: str, why: str) -> ContinualError:
    return ContinualError(f"no Ray cluster answers at RAY_ADDRESS={address} ({why}); {FIX}")
