"""What is judged: images with their scores, truth, patient and groups, as one model gave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from common.errors import DataError
from common.models.influence import BoolArray
from common.types import FloatArray

Names = npt.NDArray[np.str_]
Family = tuple[str, ...]
"""One attribute, or the attributes whose combinations are the groups."""

BETWEEN: Final = " × "
"""Stands between the levels of a pair."""


@dataclass(frozen=True)
class Sample:
    """Images of test patients under one model; patient-level, so it never leaves where it was made.

    Raises:
        DataError: when the parts are not of the same images, or a score is not a probability.
    """

    scores: FloatArray
    """[images] probabilities of the finding."""
    labels: npt.ArrayLike
    """[images] 0 or 1."""
    patients: npt.ArrayLike
    """[images] any identifiers."""
    attributes: Mapping[str, npt.ArrayLike]
    """Per attribute, [images] the level of each; an empty level is unknown and in no group."""
    threshold: float = 0.5
    """The one operating point of all groups: at or above it an image is called positive."""

    def __post_init__(self) -> None:
        sizes = {len(np.asarray(x)) for x in (self.scores, self.labels, self.patients)}
        sizes |= {len(np.asarray(x)) for x in self.attributes.values()}
        if len(sizes) != 1 or np.asarray(self.scores).ndim != 1:
            raise DataError("scores", "every image needs one of each", "Check the prediction step")
        scores = np.asarray(self.scores, dtype=np.float64)
        if not (np.isfinite(scores).all() and ((scores >= 0) & (scores <= 1)).all()):
            raise DataError("scores", "they must be probabilities in [0, 1]", "Check the prediction step")

    @property
    def truth(self) -> BoolArray:
        """[images] whether the finding is there."""
        found: BoolArray = np.asarray(self.labels, dtype=np.float64) > 0.5
        return found

    @property
    def calls(self) -> BoolArray:
        """[images] whether the image is called positive."""
        called: BoolArray = np.asarray(self.scores) >= self.threshold
        return called

    def levels(self, family: Family) -> Names:
        """[images] the level of each in a family, empty where any of its attributes is unknown.

        Raises:
            DataError: there is no such attribute.
        """
        for name in family:
            if name not in self.attributes:
                known = ", ".join(self.attributes)
                raise DataError(name, "the images have no such attribute", f"Choose among: {known}")
        columns = [np.asarray(self.attributes[name]).astype(str) for name in family]
        joined = columns[0]
        for column in columns[1:]:
            both = np.char.add(np.char.add(joined, BETWEEN), column)
            joined = np.where((joined == "") | (column == ""), "", both)
        return joined


def families_of(attributes: Sequence[str], *, pairs: bool = True) -> tuple[Family, ...]:
    """Every attribute by itself and, where wanted, every two together."""
    single = tuple((name,) for name in attributes)
    return single + tuple(combinations(attributes, 2)) if pairs else single
