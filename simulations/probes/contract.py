"""What every probe is given and what it gives back.

A probe is a function of a `Model` and of patients (`Seen`, as they were imaged, or `Counterfactual`, each on every
machine) that returns `server.records_bias.Probe` records. It draws from the generator it is given and from
nothing else: the same arguments give the same records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from common.errors import DataError
from common.types import FloatArray

Images = npt.NDArray[np.float32]
"""[images, rows, columns] as a network sees them."""
Truth = npt.NDArray[np.bool_]
Owners = npt.NDArray[np.int64]
Names = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Model:
    """A trained model as functions; any will do, also one that a test made up."""

    logits: Callable[[Images], FloatArray]
    """[images] the logit of the finding."""
    features: Callable[[Images], FloatArray] | None = None
    """[images, features] what the last layer reads."""
    heat: Callable[[Images], FloatArray] | None = None
    """[images, rows, columns], none negative: where the evidence lies."""


@dataclass(frozen=True)
class Seen:
    """Patients as they were imaged.

    Raises:
        DataError: when the parts are not of the same images.
    """

    images: Images
    truth: Truth
    """[images]"""
    patients: Owners
    """[images]"""
    attributes: Mapping[str, Names] = field(default_factory=dict)
    """Per attribute, [images] the level; empty where it is not known."""

    def __post_init__(self) -> None:
        sizes = {len(self.images), len(self.truth), len(self.patients)}
        if len(sizes | {len(values) for values in self.attributes.values()}) != 1:
            raise DataError("images to probe", "every image needs one of each", "Check what was collected")


@dataclass(frozen=True)
class Counterfactual:
    """Scores of patients each of whom was imaged on every machine: same chest, pose and finding.

    Raises:
        DataError: when the parts are not of the same patients.
    """

    logits: FloatArray
    """[patients, machines]"""
    machines: tuple[str, ...]
    truth: Truth
    """[patients]"""
    sites: Names
    """[patients]"""
    own: npt.NDArray[np.int64]
    """[patients] the machine on which the patient was really imaged, by its place in `machines`."""

    def __post_init__(self) -> None:
        if {len(self.truth), len(self.sites), len(self.own)} != {len(self.logits)}:
            raise DataError("patients to swap", "every patient needs one of each", "Check what was drawn")

    @property
    def factual(self) -> FloatArray:
        """[patients] the logit on the patient's own machine."""
        chosen: FloatArray = self.logits[np.arange(len(self.own)), self.own]
        return chosen

    def of(self, which: Truth) -> Counterfactual:
        """Some of the patients."""
        return Counterfactual(
            self.logits[which], self.machines, self.truth[which], self.sites[which], self.own[which]
        )


def chances(logits: FloatArray) -> FloatArray:
    """Probabilities of logits."""
    return 0.5 * (1 + np.tanh(np.asarray(logits, dtype=np.float64) / 2))
