"""What an analysis counts: labels, axes and their public bins, the same at every hospital; counts as one vector.

A vector is every table behind the other: for each axis, for each label, its bins. A patient stands in one cell of
each table. Bins are constants of the release or words of the plan; nothing here was computed from patients.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common.errors import FederationError
from common.plan import Plan
from common.types import Digest

Counts = npt.NDArray[np.int64]
"""[size] of a schema."""

BITS: Final = 32
"""Of one count under masks."""
LEAST: Final = 3
"""Hospitals in a sum, at least: of two each knows the other's part."""
UNKNOWN: Final = "unknown"
SEVERAL: Final = "several"
OTHER: Final = "other"
UNLABELLED: Final = "unlabelled"
_AGES: Final = (*(f"{ten}-{ten + 9}" for ten in range(0, 90, 10)), "90+", UNKNOWN)
_SEXES: Final = ("F", "M", "O", UNKNOWN)
_PROJECTIONS: Final = ("AP", "PA", "LL", "RL", "LATERAL", "CC", "MLO", OTHER, SEVERAL, UNKNOWN)
_IMAGES: Final = ("1", "2", "3-4", "5-9", "10+")
FIGURES: Final[dict[str, tuple[float, ...]]] = {
    "median": (-512, -128, 0, 128, 512, 1024, 2048, 4096, 8192, 16384, 32768),
    "spread": (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768),
    "exposure": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "contrast": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "noise": (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    "sharpness": (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
}
"""Inner edges of the grids, a bin reaching from its lower edge up to, not including, its upper one; units as in
`client.quality_figures.measure`. Chosen to cover the range of the images named there."""
AXES: Final = (
    "patients",
    "age",
    "sex",
    "projection",
    "modality",
    "manufacturer",
    "images",
    *FIGURES,
    "finding",
)
GROUPED: Final = ("age", "sex", "projection", "manufacturer")
"""Axes that are groups of a hospital's `policy.groups` too."""


@dataclass(frozen=True)
class Axis:
    """One attribute and its bins."""

    name: str
    bins: tuple[str, ...]
    ordered: bool = False
    """Whether neighbouring bins are alike."""


@dataclass(frozen=True)
class Schema:
    """Everything that is counted."""

    labels: tuple[str, ...]
    positive: tuple[int, ...]
    """Which labels count as ill when prevalence is told; the others but `unlabelled` are not."""
    axes: tuple[Axis, ...]

    @property
    def size(self) -> int:
        """Cells of all tables."""
        return len(self.labels) * sum(len(axis.bins) for axis in self.axes)

    @property
    def digest(self) -> Digest:
        """SHA-256 over labels, axes and bins, edges included."""
        said = json.dumps([asdict(self), FIGURES], sort_keys=True)
        return Digest("sha256:" + hashlib.sha256(said.encode()).hexdigest())

    def tables(self, counts: Counts) -> dict[str, Counts]:
        """The vector as tables [labels, bins], by axis; views of it."""
        found, at = {}, 0
        for axis in self.axes:
            shape = (len(self.labels), len(axis.bins))
            found[axis.name] = counts[at : at + shape[0] * shape[1]].reshape(shape)
            at += shape[0] * shape[1]
        return found

    def axis(self, name: str) -> Axis:
        """The axis of this name."""
        return next(axis for axis in self.axes if axis.name == name)


def schema_of(plan: Plan) -> Schema:
    """What an analysis under this plan counts."""
    labels, positive = _labels(plan)
    makers = (*plan.analytics.manufacturers, OTHER, SEVERAL, UNKNOWN)
    axes = [
        Axis("patients", ("all",)),
        Axis("age", _AGES, ordered=True),
        Axis("sex", _SEXES),
        Axis("projection", _PROJECTIONS),
    ]
    if len(plan.input.modalities) > 1:
        axes.append(Axis("modality", (*sorted(plan.input.modalities), SEVERAL)))
    axes += [Axis("manufacturer", makers), Axis("images", _IMAGES, ordered=True)]
    axes += [Axis(name, _grid(edges), ordered=True) for name, edges in FIGURES.items()]
    if plan.task.kind == "multilabel":
        axes.append(Axis("finding", (*plan.task.classes, SEVERAL, "none")))
    return Schema(labels, positive, tuple(axes))


def summed_of(plan: Plan, everybody: Collection[str]) -> tuple[str, ...]:
    """The sites whose counts go into the sum: those of the plan, or of the roster, that show none of their own; sorted."""
    return tuple(sorted(set(plan.federation.sites or everybody) - set(plan.analytics.own)))


def most(parties: int) -> int:
    """The largest count of one site in a sum of so many that cannot wrap."""
    return int((2 ** (BITS - 1) - 1) // parties)


def encoded(counts: Counts, parties: int) -> npt.NDArray[np.uint32]:
    """Whole numbers modulo 2^32, exact.

    Raises:
        FederationError: `secagg-range` for a count that a sum of so many parties could not hold.
    """
    if counts.size and int(np.abs(counts).max()) > most(parties):
        raise FederationError(
            "the analysis", "a count is beyond what can be summed", "Nothing has left", code="secagg-range"
        )
    return (counts & 0xFFFFFFFF).astype(np.uint32)


def decoded(total: npt.NDArray[np.uint32]) -> Counts:
    """The opened sum as signed whole numbers."""
    return total.view(np.int32).astype(np.int64)


def sensitivity(schema: Schema) -> float:
    """L2 norm by which one patient more moves the vector: one cell of each table."""
    return math.sqrt(len(schema.axes))


def bin_of(name: str, value: float) -> int:
    """The bin of a figure that has a grid."""
    return int(np.searchsorted(FIGURES[name], value, side="right"))


def _labels(plan: Plan) -> tuple[tuple[str, ...], tuple[int, ...]]:
    match plan.task.kind:
        case "binary":
            return ("negative", "positive", UNLABELLED), (1,)
        case "multilabel":
            return ("none", "any", UNLABELLED), (1,)
        case "multiclass":
            classes = plan.task.classes
            return (*classes, UNLABELLED), tuple(range(1, len(classes)))
    return ("labelled", UNLABELLED), ()


def _grid(edges: tuple[float, ...]) -> tuple[str, ...]:
    between = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)]
    return (f"below {edges[0]:g}", *between, f"{edges[-1]:g} and above", UNKNOWN)
