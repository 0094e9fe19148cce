"""Patients as arrays: which rows of the store are whose, with their labels. Readers take patients, not files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from common.errors import WrongOrder

if TYPE_CHECKING:
    import torch

Positions = npt.NDArray[np.int64]
"""Places of images within one `PatientSet`: 0 to `n_images` - 1."""


@dataclass(frozen=True)
class PatientSet:
    """Images of some patients with labels; nothing is copied until `tensor` is asked for.

    Everything per image has one order. `images[rows[i]]` is the image at position `i`.
    """

    images: npt.NDArray[np.floating[Any]]
    """[stored images, rows, columns]; memory-mapped, shared by training, validation and test."""
    rows: npt.NDArray[np.int64]
    """[n_images] into `images`."""
    labels: npt.NDArray[Any]
    """float32 [n_images, outputs]; multiclass: int64 [n_images]."""
    patient_of: npt.NDArray[np.int64]
    """[n_images] number of the patient, 0-based, never decreasing."""
    pseudonyms: list[str]
    """[n_patients]"""
    spend_keys: list[str]
    """[n_patients] names in the privacy ledger."""
    attributes: dict[str, npt.NDArray[np.str_]] = field(default_factory=dict)
    """[n_images] each: manufacturer, model, scanner, projection, sex, age (band); `unknown` where not told."""

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self.rows)

    @property
    def n_patients(self) -> int:
        """Number of patients, each with at least one image."""
        return len(self.pseudonyms)

    def rows_of(self, patient: int) -> Positions:
        """Positions of one patient's images (patient: 0-based number)."""
        first, end = np.searchsorted(self.patient_of, [patient, patient + 1])
        return np.arange(first, end, dtype=np.int64)

    def pixels(self, positions: Positions) -> npt.NDArray[np.float32]:
        """The images at these positions, float32 [n, rows, columns], in that order."""
        return np.asarray(self.images[self.rows[positions]], dtype=np.float32)

    def tensor(self, positions: Positions) -> torch.Tensor:
        """As `pixels`, a float32 tensor [n, 1, rows, columns]."""
        import torch  # noqa: PLC0415 - readers of shapes and labels do not pay for it

        return torch.from_numpy(self.pixels(positions)).unsqueeze(1)

    def subset(self, patients: Sequence[int] | npt.NDArray[np.int64]) -> PatientSet:
        """Only these patients (0-based numbers, each once), renumbered in ascending order."""
        chosen = np.unique(np.asarray(patients, dtype=np.int64))
        keep = np.isin(self.patient_of, chosen)
        return PatientSet(
            images=self.images,
            rows=self.rows[keep],
            labels=self.labels[keep],
            patient_of=np.searchsorted(chosen, self.patient_of[keep]).astype(np.int64),
            pseudonyms=[self.pseudonyms[number] for number in chosen],
            spend_keys=[self.spend_keys[number] for number in chosen],
            attributes={name: values[keep] for name, values in self.attributes.items()},
        )


def concat(sets: Sequence[PatientSet]) -> PatientSet:
    """Pool patients of several sites; only simulations do this. Images are copied into memory.

    Patients of different sets stay different, whatever their pseudonyms.

    Raises:
        WrongOrder: no set at all.
    """
    if not sets:
        raise WrongOrder("a pooled set", "it is made of no set", "Give at least one")
    starts = np.cumsum([0, *(one.n_patients for one in sets)])
    images = np.concatenate([np.asarray(one.images[one.rows]) for one in sets])
    names = sorted(set.intersection(*(set(one.attributes) for one in sets)))
    return PatientSet(
        images=images,
        rows=np.arange(len(images), dtype=np.int64),
        labels=np.concatenate([one.labels for one in sets]),
        patient_of=np.concatenate([one.patient_of + start for one, start in zip(sets, starts, strict=False)]),
        pseudonyms=[name for one in sets for name in one.pseudonyms],
        spend_keys=[key for one in sets for key in one.spend_keys],
        attributes={name: np.concatenate([one.attributes[name] for one in sets]) for name in names},
    )
