"""Who may change places with whom: patients, in strata of alike ones.

A *cell* is the images that one patient has in one level. A patient whose images are all of one level
changes it as a whole, with patients of the same stratum: the same truth (positive images only,
negative only, both) and the same levels of the attributes that are held fixed, such as the site. A patient with
images in several levels (both projections, say) is their own stratum: their levels change places among
their cells of the same truth. Images never move by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.models.influence import BoolArray, IntArray, patient_codes
from common.statistics.sample import Family, Sample
from common.types import FloatArray


@dataclass(frozen=True)
class Cells:
    """The images of one family, patient by patient and level by level."""

    images: IntArray
    """[images of the family] their places in the sample."""
    cell: IntArray
    """[images of the family] the cell of each."""
    patient: IntArray
    """[cells] numbered from 0."""
    level: IntArray
    """[cells] numbered as in `names`."""
    stratum: IntArray
    """[cells] numbered from 0."""
    names: tuple[str, ...]
    """The levels."""

    @property
    def count(self) -> int:
        """How many cells."""
        return len(self.patient)

    @property
    def alone(self) -> bool:
        """Whether no patient has more than one cell."""
        return len(np.unique(self.patient)) == self.count

    def total(self, values: FloatArray) -> FloatArray:
        """The sum over each cell's images [cells] of `values` [images of the family]."""
        return np.bincount(self.cell, np.asarray(values, dtype=np.float64), self.count).astype(np.float64)

    def has(self, which: BoolArray) -> BoolArray:
        """[cells] whether any image of the cell is one of `which` [images of the family]."""
        return self.total(which.astype(np.float64)) > 0

    def arrangements(self, level: int) -> float:
        """Natural logarithm of how many ways the cells of a level can lie in their strata."""
        from scipy.special import gammaln  # noqa: PLC0415 - slow to import, and most who load this module count no cells

        inside = self.level == level
        here = np.bincount(self.stratum, inside)
        size = np.bincount(self.stratum)
        return float((gammaln(size + 1) - gammaln(here + 1) - gammaln(size - here + 1)).sum())


def cells_of(sample: Sample, family: Family, fixed: Sequence[str] = ()) -> Cells:
    """The cells of a family.

    Args:
        sample: the images.
        family: its attributes.
        fixed: attributes whose levels nobody leaves; those of the family itself are not held.
    """
    names = sample.levels(family)
    images = np.flatnonzero(names != "").astype(np.int64)
    levels, level_of = np.unique(names[images], return_inverse=True)
    owner = patient_codes(np.asarray(sample.patients)[images]) if len(images) else images
    keys, cell = np.unique(
        np.stack([owner, level_of.reshape(-1).astype(np.int64)]), axis=1, return_inverse=True
    )
    cell = cell.reshape(-1).astype(np.int64)
    held = [sample.levels((name,))[images] for name in fixed if name not in family]
    stratum = _strata(keys[0], cell, sample.truth[images], held)
    return Cells(images, cell, keys[0], keys[1], stratum, tuple(str(name) for name in levels))


def _strata(patient: IntArray, cell: IntArray, truth: BoolArray, held: Sequence[np.ndarray]) -> IntArray:
    """[cells] who may change places."""
    count = len(patient)
    kinds = _kinds(cell, truth, count)
    several = np.bincount(patient, minlength=1)[patient] > 1 if count else np.zeros(0, dtype=bool)
    parts = [kinds, np.where(several, patient, -1)]
    for column in held:
        codes = np.unique(column, return_inverse=True)[1].reshape(-1)
        # A cell of several held levels is a stratum with those of the same lowest and highest.
        low, high = np.full(count, np.iinfo(np.int64).max), np.full(count, -1)
        np.minimum.at(low, cell, codes)
        np.maximum.at(high, cell, codes)
        parts += [np.where(several, -1, low), np.where(several, -1, high)]
    found = np.unique(np.stack(parts), axis=1, return_inverse=True)[1]
    return found.reshape(-1).astype(np.int64)


def _kinds(cell: IntArray, truth: BoolArray, count: int) -> IntArray:
    """[cells] 1 with positive images only, 2 with negative only, 3 with both."""
    positive = np.bincount(cell, truth, count) > 0
    negative = np.bincount(cell, ~truth, count) > 0
    return positive.astype(np.int64) + 2 * negative
