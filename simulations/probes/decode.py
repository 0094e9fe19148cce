"""Whether machine, site and sex can be read from what a model sees. Described, never judged.

A linear classifier (ridge regression on one column a level, the largest answer wins) is trained on some patients and asked about others,
in four folds of patients. The figure is balanced accuracy, the mean over levels of the share recognised, with a bootstrap over patients;
the band is what the same classifier reaches when levels were dealt to patients at random.
A model from whose features the scanner can be read may still not use it: whether it does is asked by `swap` and `dependence`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from common.messages import Estimate
from common.types import FloatArray
from server.records_bias import Chance, Probe
from simulations.probes.contract import Images, Names, Owners

FOLDS: Final = 4
PIXEL_GRID: Final = 16
"""Raw pixels are averaged to this many rows and columns."""
_PENALTY: Final = 1e-2
"""Of the ridge, as a share of the mean diagonal of the kernel."""
_DEALS: Final = 100
_RESAMPLES: Final = 300


@dataclass(frozen=True)
class Read:
    """How well one attribute is read."""

    accuracy: Estimate
    band: Chance
    levels: int
    patients: int


def decode(
    values: FloatArray,
    attributes: dict[str, Names],
    patients: Owners,
    rng: np.random.Generator,
    deals: int = _DEALS,
) -> dict[str, Read]:
    """Read every attribute from the same values; attributes with one level are left out.

    Args:
        values: [images, features].
        attributes: each [images].
        patients: [images]
        rng: of folds, deals and the bootstrap.
        deals: of levels at random, for the band.
    """
    kernel = _kernel(values)
    people, owner = np.unique(patients, return_inverse=True)
    owner = owner.reshape(-1)
    fold = rng.permutation(np.arange(len(people)) % FOLDS)[owner]
    answers = _Answers(kernel, fold)
    found = {}
    for name, levels in attributes.items():
        names, codes = np.unique(levels, return_inverse=True)
        if len(names) > 1:
            found[name] = _read(answers, codes.reshape(-1), owner, rng, deals)
    return found


def records(read: dict[str, Read], source: str, round_: int | None = None) -> tuple[Probe, ...]:
    """The readings as records; `source` is `features`, `pixels` or `score`."""
    return tuple(
        Probe(
            "decode", name, one.accuracy, judged=False, patients=one.patients, source=source,
            chance=one.band, round=round_,
        )
        for name, one in read.items()
    )  # fmt: skip


def coarse(images: Images, side: int = PIXEL_GRID) -> FloatArray:
    """Pixels averaged to `side` rows and columns, [images, side * side]."""
    small = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(images)[:, None], side)
    return np.asarray(small.flatten(1).numpy(), dtype=np.float64)


class _Answers:
    """Held-out answers of ridge regression in a kernel: linear in what is asked, so many questions cost little."""

    def __init__(self, kernel: FloatArray, fold: np.ndarray) -> None:
        self._count = len(fold)
        self._parts = []
        ridge = _PENALTY * float(np.trace(kernel)) / len(kernel)
        for number in range(FOLDS):
            out, inside = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
            if len(out) and len(inside):
                solved = np.linalg.solve(
                    kernel[np.ix_(inside, inside)] + ridge * np.eye(len(inside)), kernel[np.ix_(inside, out)]
                )
                self._parts.append((out, inside, solved.T))

    def of(self, targets: FloatArray) -> FloatArray:
        """[images, questions] of targets [images, questions], each image asked of the folds that it is not in."""
        found = np.zeros((self._count, targets.shape[1]))
        for out, inside, weights in self._parts:
            mean = targets[inside].mean(axis=0)
            found[out] = weights @ (targets[inside] - mean) + mean
        return found


def _kernel(values: FloatArray) -> FloatArray:
    spread = values.std(axis=0)
    standard = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    kernel: FloatArray = standard @ standard.T / max(standard.shape[1], 1)
    return kernel + 1e-6 * np.eye(len(kernel))


def _read(
    answers: _Answers, codes: np.ndarray, owner: np.ndarray, rng: np.random.Generator, deals: int
) -> Read:
    count = int(codes.max()) + 1
    dealt = [codes, *(_dealt(codes, owner, rng) for _ in range(deals))]
    hot = np.concatenate([np.eye(count)[one] for one in dealt], axis=1)
    # Against each level's own share, or everybody would be called by the commonest.
    share = np.bincount(codes, minlength=count) / len(codes)
    said = (answers.of(hot).reshape(len(codes), len(dealt), count) - share) / np.sqrt(share * (1 - share))
    called = said.argmax(axis=2)
    ones = np.ones(len(codes))
    chance = [_balanced(dealt[k], called[:, k], ones, count) for k in range(1, len(dealt))]
    value = _balanced(codes, called[:, 0], ones, count)
    draws = [_balanced(codes, called[:, 0], _weights(owner, rng), count) for _ in range(_RESAMPLES)]
    low, high = np.quantile(draws, [0.025, 0.975])
    band = np.quantile(chance, [0.025, 0.975]) if chance else (1 / count, 1 / count)
    return Read(
        Estimate(value, min(value, float(low)), max(value, float(high))),
        Chance(float(band[0]), float(band[1])),
        count,
        int(owner.max()) + 1,
    )


def _dealt(codes: np.ndarray, owner: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Levels change places between patients as a whole; an image follows its patient's first."""
    _, first = np.unique(owner, return_index=True)
    dealt: np.ndarray = codes[first][rng.permutation(len(first))][owner]
    return dealt


def _balanced(truth: np.ndarray, called: np.ndarray, weight: FloatArray, count: int) -> float:
    total = np.bincount(truth, weight, count)
    right = np.bincount(truth, weight * (called == truth), count)
    return float((right[total > 0] / total[total > 0]).mean())


def _weights(owner: np.ndarray, rng: np.random.Generator) -> FloatArray:
    people = int(owner.max()) + 1
    drawn: FloatArray = np.bincount(rng.integers(people, size=people), minlength=people)[owner].astype(float)
    return drawn


def names_of(read: Sequence[Probe]) -> tuple[str, ...]:
    """The attributes that were read, in order."""
    return tuple(dict.fromkeys(p.subject for p in read))
