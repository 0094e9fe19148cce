"""Batches of patients: which images of which patients enter a step, and with what weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from client.augment import Draws

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Some images of some patients, patient by patient."""

    images: Ints
    """[n] positions within the patient set."""
    slots: Ints
    """[n] the patient of each image, numbered 0, 1, ... within the batch, ascending."""
    patients: int
    draws: Draws | None = None
    """The augmentation of each image, drawn before it is known how the batch is cut."""

    @property
    def weights(self) -> npt.NDArray[np.float32]:
        """[n]: 1 / (images of the same patient here), so that a patient's images are averaged."""
        return (1.0 / np.bincount(self.slots, minlength=self.patients)[self.slots]).astype(np.float32)

    def parts(self, most: int) -> Iterator[Batch]:
        """Whole patients in parts of at most `most` images, or of one patient where that is more."""
        ends = np.searchsorted(self.slots, np.arange(self.patients), side="right")
        first = 0
        while first < self.patients:
            start = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, start + most, side="right")))
            stop = int(ends[last - 1])
            yield self._cut(slice(start, stop), first, last - first)
            first = last

    def _cut(self, which: slice, first: int, patients: int) -> Batch:
        draws = self.draws.take(np.arange(which.start, which.stop)) if self.draws else None
        return Batch(self.images[which], self.slots[which] - first, patients, draws)


class Roster:
    """Which images belong to which patient.

    Args:
        patient_of: [n_images] the 0-based patient of each image.
        patients: their number; a patient without an image is allowed and contributes nothing.
    """

    def __init__(self, patient_of: Ints, patients: int) -> None:
        self.patients = patients
        self._order = np.argsort(patient_of, kind="stable").astype(np.int64)
        counts = np.bincount(patient_of, minlength=patients)
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts

    def images_of(self, patient: int) -> Ints:
        """Positions of the patient's images, ascending."""
        return self._order[self._starts[patient] : self._ends[patient]]

    def batch(self, patients: Ints, choose: Callable[[Ints], Ints]) -> Batch:
        """A batch of these patients, the images of each thinned out by `choose`."""
        chosen = [choose(self.images_of(int(p))) for p in patients]
        chosen = [images for images in chosen if len(images)]
        if not chosen:
            return Batch(np.empty(0, np.int64), np.empty(0, np.int64), 0)
        slots = np.repeat(np.arange(len(chosen)), [len(images) for images in chosen])
        return Batch(np.concatenate(chosen), slots, len(chosen))


Choose = Callable[[Ints, int], Ints]
"""Some of the given images, at most so many, at random; all of them where they are not more."""


def at_random(rng: np.random.Generator) -> Choose:
    """A chooser that keeps a random subset, in ascending order."""

    def choose(images: Ints, most: int) -> Ints:
        """See `Choose`."""
        if len(images) <= most:
            return images
        return np.sort(rng.choice(images, most, replace=False))

    return choose


def up_to(most: int, choose: Choose, *, views: bool) -> Callable[[Ints], Ints]:
    """What of a patient enters a step: K images where there are so many, else K augmented views of fewer.

    De et al. 2022 ("Unlocking high-accuracy differentially private image classification through scale",
    section 3.2) average the gradients of several augmented views of one example before they are clipped.
    A patient's contribution is still one vector, clipped once: views cost time and no privacy.

    Args:
        most: K.
        choose: who draws the images.
        views: whether fewer images than K are repeated, in turn and as evenly as can be; of use only where
            every repetition is augmented anew.
    """

    def take(images: Ints) -> Ints:
        """The images of one patient, ascending; one that is seen twice stands twice."""
        if not views or not 0 < len(images) < most:
            return choose(images, most)
        whole, rest = divmod(most, len(images))
        return np.sort(np.concatenate([np.tile(images, whole), choose(images, rest)]))

    return take
