"""The address of a Ray cluster, asked before Ray connects: Ray itself waits for minutes for what never answers."""

import queue
import socket
import threading
import time
from typing import Any

from continual.errors import ContinualError

MOST_SECONDS = 8.0
"""How long a cluster may take to answer, from the look-up of its name on."""
FIX = "start the cluster, name `host:port` of its head (`ray start --head` prints it), or unset RAY_ADDRESS"
SILENT, OTHER = "nothing answered within seconds", "what listens there is not the head of a Ray cluster"
NO_TOKEN = (
    "the Ray cluster at RAY_ADDRESS={address} asks for its token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to what "
    "`ray get-auth-token` prints on its head"
)
"""What is said of a cluster that this driver may not use: with no token, or another one than the cluster's."""


def check_address(address: str) -> None:
    """Return within ten seconds if the head of a cluster is there; raise ContinualError if none answers.

    `auto` and `local` are left to Ray, which looks for these on this machine. If the cluster asks for a token, Ray is
    told to send the one that this machine has, unless RAY_AUTH_MODE is set.
    """
    if address in ("auto", "local"):
        return
    if "://" in address:
        scheme = address.partition("://")[0]
        raise _none(address, f"`{scheme}://` is not how a driver connects")
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise _none(address, "that is not `host:port`")
    import ray.core.generated.gcs_service_pb2_grpc  # noqa: F401 (takes seconds, which are not the cluster's)

    # Looking up a name has no time limit, so a thread does it; after MOST_SECONDS nobody waits for the thread.
    answers: queue.Queue[str | None] = queue.Queue()
    asking = threading.Thread(target=lambda: answers.put(_problem(host.strip("[]"), int(port))), daemon=True)
    asking.start()
    try:
        problem = answers.get(timeout=MOST_SECONDS)
    except queue.Empty:
        problem = SILENT
    if problem == NO_TOKEN:
        raise ContinualError(NO_TOKEN.format(address=address))
    if problem is not None:
        raise _none(address, problem)


def _problem(host: str, port: int) -> str | None:
    """Return why no cluster can be reached at a host and port, or None if one answers."""
    until = time.monotonic() + MOST_SECONDS - 1
    try:
        socket.create_connection((host, port), MOST_SECONDS / 2).close()
    except TimeoutError:
        return SILENT
    except (OSError, UnicodeError) as error:
        return str(getattr(error, "strerror", None) or error).lower()
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    problem = _no_head(target, until - time.monotonic())
    if problem == NO_TOKEN and _send_token():
        return _no_head(target, until - time.monotonic())
    return problem


def _send_token() -> bool:
    """Tell Ray to send this machine's token if there is one; return whether it sends one now.

    RAY_AUTH_MODE has the last word. `ray start` asks every driver for a token where one has been made, as any local run
    does, but a driver sends it only where RAY_AUTH_MODE is set (ray 2.60).
    """
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    return maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _no_head(target: str, seconds: float) -> str | None:
    """Ask what listens for the nodes of its cluster, which Ray's control service alone knows; return what is wrong."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    try:
        channel = init_grpc_channel(target, [("grpc.enable_http_proxy", 0)])
    except Exception:  # a token or a certificate is missing; Ray tells which
        return None
    try:
        service = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        question: Any = getattr(gcs_service_pb2, "CheckAliveRequest")()  # noqa: B009 (made when imported)
        service.CheckAlive(question, timeout=max(1.0, seconds))
    except grpc.RpcError as error:
        code = error.code()
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return SILENT
        return NO_TOKEN if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED) else OTHER
    except Exception:  # the token cannot be read; Ray tells why
        return None
    finally:
        channel.close()
    return None


def _none(address: str, why: str) -> ContinualError:
    return ContinualError(f"no Ray cluster answers at RAY_ADDRESS={address} ({why}); {FIX}")
