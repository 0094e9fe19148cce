"""A crew on a Ray cluster that is there already: the same pieces of work, on its processors.

Its machines need this release and the folders of the run at the same paths; a piece of work gets one processor.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any, Final, ParamSpec, TypeVar
from urllib.parse import urlsplit

from common.durability import relax
from common.errors import FederationError, InputError
from simulations.board import Board
from simulations.crew import Crew

Given = ParamSpec("Given")
Result = TypeVar("Result")
_PATIENCE_S: Final = 10.0
_CLIENT_PORT: Final = 10001
"""Where a cluster's head listens for `ray://` addresses that name no port."""
_FORMS: Final = "auto, HOST:PORT, or ray://HOST:PORT"


class _Cluster(Executor):
    """Ray's tasks as futures."""

    def __init__(self, ray: Any) -> None:
        # A task that failed has failed: Ray would repeat one whose worker was lost, on a half-made folder.
        self._remote = ray.remote(_carried_out).options(num_cpus=1, max_retries=0)

    def submit(
        self, fn: Callable[Given, Result], /, *args: Given.args, **kwargs: Given.kwargs
    ) -> Future[Result]:
        """One piece of work for the cluster."""
        found: Future[Result] = self._remote.remote(fn, args, kwargs).future()
        return found


@contextmanager
def cluster(address: str, bars: Board) -> Iterator[Crew]:
    """The cluster's processors as a crew, for the length of a block.

    Args:
        address: as Ray has it, such as `auto`, `local` or `ray://host:10001`.
        bars: move when pieces end; what is inside one is not shown.

    Raises:
        InputError: Ray is not installed here, or this is no address.
        FederationError: `worker-lost`: no cluster answers there.
    """
    os.environ.setdefault(
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
    )  # what the next release does, without its warning
    try:
        import ray  # noqa: PLC0415 - two seconds, for those who have one
    except ImportError:
        raise InputError(
            "--ray", "Ray is not installed here", "pip install 'flwr[simulation]', or leave --ray out"
        ) from None
    _answering(address)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, include_dashboard=None)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError):
        raise _silent(address) from None
    try:
        size = int(ray.cluster_resources().get("CPU", 1))
        yield Crew(_Cluster(ray), bars, size)
    finally:
        ray.shutdown()


def _answering(address: str) -> None:
    """See that somebody listens at `HOST:PORT` or `ray://HOST:PORT`: Ray itself tries for two minutes, then ends the process."""
    whole = address if "://" in address else f"ray://{address}"
    try:
        parts = urlsplit(whole)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if address in {"auto", "local"}:
        return
    if not host or parts.scheme != "ray" or (whole != address and port is None):
        raise InputError(f"--ray {address}", "it is no address of a Ray cluster", f"Write {_FORMS}")
    try:
        socket.create_connection((host, port or _CLIENT_PORT), timeout=_PATIENCE_S).close()
    except OSError:
        raise _silent(address) from None


def _silent(address: str) -> FederationError:
    return FederationError(
        f"--ray {address}",
        "no Ray cluster answers there",
        "Start one (ray start --head), or leave --ray out to use the cores of this machine",
        code="worker-lost",
    )


def _carried_out(fn: Callable[..., Result], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    relax()
    return fn(*args, **kwargs)
