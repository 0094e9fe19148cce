"""Rules for sums that some sites may try to spoil, where the server sees every update (visible mode).

    trimmed mean  coordinate by coordinate, without the f smallest and the f largest     Yin et al., ICML 2018
    median        coordinate by coordinate                                               Yin et al., ICML 2018
    Multi-Krum    the mean of the n - f updates nearest to their neighbours              Blanchard et al., NIPS 2017
    Bulyan        Krum's choice of n - 2f, then the mean of what is next to the median   El Mhamdi et al., ICML 2018

Every site counts the same here, because a weight is a claim too. f is how many sites may be wrong at once; a
rule that cannot stand f among n says so by name. Updates are held as they were handed over, so a memory-mapped one
stays on disk, and are worked through tensor by tensor. No rule's result depends on the order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from common.arrays import Schema, blank, digest, schema_of, slices
from common.errors import FederationError, WrongOrder
from common.plan_federation import least_updates
from common.tensors import give_back
from common.types import Arrays
from server.strategies.contract import SILENT, Said

Stack = npt.NDArray[np.float32]
"""[sites, values]: the same values of every site."""


@dataclass(frozen=True)
class Held:
    """The updates of one round so far; their tensors are looked at only when the round closes."""

    schema: Schema
    updates: tuple[Arrays, ...] = ()
    weight: int = 0
    folder: Path | None = None
    """Where the next model lies in a mapped file; in memory where none is given."""


@dataclass(frozen=True)
class Robust:
    """One rule and how many wrong sites it shall stand."""

    name: str
    tolerated: int

    def begin(self, model: Arrays) -> Arrays:
        """The model, and nothing to remember."""
        return model

    def sent(self, carried: Arrays) -> Arrays:
        """The model alone."""
        return carried

    def init(self, schema: Schema, total_weight: int, folder: Path | None = None) -> Held:
        """No update yet; updates lie where they were handed over from, and weights do not count here."""
        del total_weight
        return Held(schema, folder=folder)

    def fold(self, state: Held, delta: Arrays, weight: int, said: Said = SILENT) -> Held:
        """The state with one more admitted update.

        Raises:
            WrongOrder: when the caller did not check its tensors before.
        """
        del said
        if schema_of(delta) != dict(state.schema):
            raise WrongOrder("update", "its tensors are not those of the model", "Admit the update first")
        return replace(state, updates=(*state.updates, delta), weight=state.weight + weight)

    def apply(self, model: Arrays, state: Held, rate: float) -> Arrays:
        """The next global model, float32.

        Raises:
            FederationError: code `robust-few`: fewer updates than the rule needs for as many wrong ones.
            WrongOrder: when nothing was folded.
        """
        if not state.updates:
            raise WrongOrder("round", "no update was added", "Check the quorum before the step")
        rule = RULES[self.name]
        least = least_updates(self.name, self.tolerated)
        if len(state.updates) < least:
            raise FederationError(
                f"rule {self.name}",
                f"to stand {self.tolerated} wrong sites it needs {least} updates, and {len(state.updates)} came",
                "Ask more sites, lower federation.tolerated, or choose another rule",
                code="robust-few",
            )
        kept = rule.choose(state.updates, self.tolerated)
        moved = blank(schema_of(model), state.folder)
        for name, array in model.items():
            old, new = array.reshape(-1), moved[name].reshape(-1)
            for part, stack in _stacks(kept, name):
                joined = rule.join(stack, self.tolerated)
                new[part] = old[part].astype(np.float64) + rate * joined
                give_back(old, new)
        return moved


@dataclass(frozen=True)
class Rule:
    """How a rule chooses among whole updates, and how it joins the values of those it chose."""

    choose: Callable[[tuple[Arrays, ...], int], tuple[Arrays, ...]]
    join: Callable[[Stack, int], npt.NDArray[np.float64]]


def trimmed_mean(stack: Stack, tolerated: int) -> npt.NDArray[np.float64]:
    """Mean of each column without its `tolerated` smallest and largest values."""
    middle = np.sort(stack, axis=0)[tolerated : len(stack) - tolerated]
    return np.asarray(middle.mean(axis=0, dtype=np.float64))


def median(stack: Stack, _tolerated: int) -> npt.NDArray[np.float64]:
    """Median of each column."""
    return np.asarray(np.median(stack.astype(np.float64), axis=0))


def mean(stack: Stack, _tolerated: int) -> npt.NDArray[np.float64]:
    """Mean of each column, summed in the order of the values."""
    return np.asarray(np.sort(stack, axis=0).mean(axis=0, dtype=np.float64))


def near_median(stack: Stack, tolerated: int) -> npt.NDArray[np.float64]:
    """Mean of the values of each column that are nearest to its median, all but 2f of them (Bulyan's second step)."""
    ordered = np.sort(stack, axis=0).astype(np.float64)
    count = len(ordered) - 2 * tolerated
    centre = np.median(ordered, axis=0)
    # The nearest ones stand side by side in the sorted column: one window of them has the least farthest end.
    reach = [
        np.maximum(centre - ordered[k], ordered[k + count - 1] - centre) for k in range(2 * tolerated + 1)
    ]
    first = np.argmin(np.stack(reach), axis=0)
    rows = first[None, :] + np.arange(count)[:, None]
    return np.asarray(np.take_along_axis(ordered, rows, axis=0).mean(axis=0))


def krum_order(squared: npt.NDArray[np.float64], tolerated: int) -> list[int]:
    """Sites from the most to the least central: by the sum of squared distances to their n - f - 2 nearest.

    Args:
        squared: [n, n] squared distances between updates.
        tolerated: f.
    """
    nearest = max(len(squared) - tolerated - 2, 1)
    others = np.sort(squared + np.diag(np.full(len(squared), np.inf)), axis=1)
    scores = others[:, :nearest].sum(axis=1)
    return [int(k) for k in np.argsort(scores, kind="stable")]


def distances(updates: tuple[Arrays, ...]) -> npt.NDArray[np.float64]:
    """[n, n] squared Euclidean distances over all tensors together, in float64."""
    squared = np.zeros((len(updates), len(updates)))
    for name in updates[0]:
        for _, stack in _stacks(updates, name):
            wide = stack.astype(np.float64)
            for k in range(len(updates) - 1):
                apart = np.square(wide[k + 1 :] - wide[k]).sum(axis=1)
                squared[k, k + 1 :] += apart
                squared[k + 1 :, k] += apart
    return squared


def _everyone(updates: tuple[Arrays, ...], _tolerated: int) -> tuple[Arrays, ...]:
    return updates


def _multi_krum(updates: tuple[Arrays, ...], tolerated: int) -> tuple[Arrays, ...]:
    updates = _in_order(updates)
    order = krum_order(distances(updates), tolerated)
    return tuple(updates[k] for k in order[: len(updates) - tolerated])


def _bulyan(updates: tuple[Arrays, ...], tolerated: int) -> tuple[Arrays, ...]:
    """Krum's first choice again and again, each time among those that are left."""
    updates = _in_order(updates)
    squared, left = distances(updates), list(range(len(updates)))
    chosen: list[int] = []
    while len(chosen) < len(updates) - 2 * tolerated:
        best = left[krum_order(squared[np.ix_(left, left)], tolerated)[0]]
        chosen.append(best)
        left.remove(best)
    return tuple(updates[k] for k in chosen)


def _in_order(updates: tuple[Arrays, ...]) -> tuple[Arrays, ...]:
    """By their digests, so that two updates equally central are not told apart by who came first."""
    return tuple(sorted(updates, key=digest))


RULES: Final[dict[str, Rule]] = {
    "trimmed-mean": Rule(_everyone, trimmed_mean),
    "median": Rule(_everyone, median),
    "multi-krum": Rule(_multi_krum, mean),
    "bulyan": Rule(_bulyan, near_median),
}


def _stacks(updates: tuple[Arrays, ...], name: str) -> Iterator[tuple[slice, Stack]]:
    """The values of one tensor, of all updates beside each other, a slice at a time: 1 MiB a site."""
    flats = [update[name].reshape(-1) for update in updates]
    for part in slices(*flats):
        yield part, np.stack([np.asarray(flat[part], np.float32) for flat in flats])
