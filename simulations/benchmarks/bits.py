"""What an update weighs on the wire, by the bits of a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from rich.table import Table

from common import wire
from common.cli import grid
from common.compression import compress
from common.messages import Update
from common.types import Digest, RunId, SiteName

_BITS: Final[tuple[Literal[16, 8], ...]] = (16, 8)
_NONE: Final = Digest("sha256:" + "0" * 64)


@dataclass(frozen=True)
class Weighed:
    """One coding of the same update."""

    bits: int
    bytes: int
    share: float
    """Of the bytes at 32 bits."""


def weighed(values: int, seed: int = 1) -> list[Weighed]:
    """An update of so many normally distributed numbers in each coding, 32 bits first."""
    numbers = np.random.default_rng(seed).standard_normal(values).astype(np.float32)
    update = Update(SiteName("bench"), RunId("run-1"), 1, _NONE, _NONE, 100, {"weight": numbers})
    codings = {32: update.arrays} | {b: compress(update.arrays, b, ("run-1", 1, "bench")) for b in _BITS}
    sizes = {
        bits: len(wire.pack(Update(update.site, update.run, 1, _NONE, _NONE, 100, arrays, bits=bits)))
        for bits, arrays in codings.items()
    }
    return [Weighed(bits, size, size / sizes[32]) for bits, size in sizes.items()]


def bits_table(found: list[Weighed]) -> Table:
    """A line for each coding."""
    lines = [(str(w.bits), f"{w.bytes:,}", f"{w.share:.3f}") for w in found]
    return grid("Bytes of an update", ("bits of a value", "bytes", "of 32 bits"), lines)
