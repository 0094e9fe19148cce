"""A crew on a Ray cluster that is there already: the same pieces of work, on its processors.

Its machines need this release and the folders of the run at the same paths; a piece of work gets one processor.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from common.durability import relax
from common.errors import FederationError
from simulations.board import Board
from simulations.crew import Crew

Given = ParamSpec("Given")
Result = TypeVar("Result")


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
        FederationError: `worker-lost`: no cluster answers there.
    """
    os.environ.setdefault(
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
    )  # what the next release does, without its warning
    import ray  # noqa: PLC0415 - two seconds, for those who have one

    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, include_dashboard=None)
    except (ConnectionError, RuntimeError, ValueError):
        raise FederationError(
            "--ray",
            "no Ray cluster answers at this address",
            "Start it, or leave --ray out",
            code="worker-lost",
        ) from None
    try:
        size = int(ray.cluster_resources().get("CPU", 1))
        yield Crew(_Cluster(ray), bars, size)
    finally:
        ray.shutdown()


def _carried_out(fn: Callable[..., Result], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    relax()
    return fn(*args, **kwargs)
