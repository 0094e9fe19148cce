"""What a run begins with, and how it is carried out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.plan import Plan
from common.types import Arrays, Digest
from server.exchange import Observer


@dataclass(frozen=True)
class Start:
    """The model a run begins with: its trainable tensors and the digest of its architecture."""

    arrays: Arrays
    architecture: Digest


def start_of(plan: Plan) -> Start:
    """The plan's own model from its own seed."""
    from common import models  # noqa: PLC0415 - torch, needed by the server here only

    rows, columns = plan.input.shape[-2:]
    net = models.build(plan.model, plan.task.outputs, (rows, columns))
    return Start(models.get_arrays(net), models.architecture_digest(net))


def _nobody(_round: int, _site: str) -> None:
    """An observer that does not look."""


@dataclass(frozen=True)
class Options:
    """How a run is carried out; nothing here changes its result."""

    nodes: int = 0
    """Number of nodes to wait for; 0: those of the plan, and whoever else is there."""
    turns: int = 0
    """Number of sites that work in turn on one machine; 0: all of a virtual federation, else 1."""
    virtual: str = ""
    """Folder of a virtual federation, for nodes of Flower's simulation runtime."""
    consortium: Path | None = None
    """Folder of the server's key and of the ledger heads it has seen; the one `out` lies in when not given."""
    observer: Observer = _nobody
    start: Callable[[Plan], Start] = start_of
