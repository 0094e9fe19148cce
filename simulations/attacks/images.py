"""The pictures an attacker wants: virtual chests, or a folder of real ones, as patients of one hospital."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from client.patients import PatientSet
from common.errors import InputError
from simulations import phantoms, scanners

Pictures = npt.NDArray[np.float32]
"""[n, side, side], from 0 (black) to 1 (white)."""
_RENDERED: Final = 128
"""Rows and columns of the phantom's exposure; made smaller by averaging."""
_KINDS: Final = (".png", ".jpg", ".jpeg")


def chests(rng: np.random.Generator, count: int, side: int) -> Pictures:
    """Virtual radiographs, every second with a finding; `side` divides 128."""
    names = sorted(scanners.SCANNERS)
    made = np.empty((count, side, side), np.float32)
    for number in range(count):
        patient = phantoms.draw_patient(rng, bool(number % 2))
        projection: phantoms.Projection = "AP" if rng.random() < 0.4 else "PA"
        pose = phantoms.draw_pose(rng, projection)
        anatomy = phantoms.render(patient, projection, _RENDERED, pose)
        scanner = scanners.SCANNERS[names[int(rng.integers(len(names)))]]
        made[number] = _small(scanners.apply(anatomy, scanners.draw(rng, scanner)), side)
    return made


def pictures_in(folder: Path, rng: np.random.Generator, count: int, side: int) -> Pictures:
    """As many pictures of a folder of PNG or JPEG files, drawn at random, made square by cutting the longer side.

    Raises:
        InputError: when there are too few.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _KINDS)
    if len(files) < count:
        raise InputError(
            folder.name,
            f"it has {len(files)} PNG or JPEG pictures; this needs {count}",
            "Give another folder, or none for virtual chests",
        )
    chosen = rng.choice(len(files), count, replace=False)
    return np.stack([_read(files[int(number)], side) for number in chosen])


def patients(pictures: Pictures, labels: npt.NDArray[np.float32] | None = None, each: int = 1) -> PatientSet:
    """Patients of `each` pictures in a row; labels alternate from patient to patient unless given per picture."""
    count = len(pictures)
    of = np.arange(count, dtype=np.int64) // each
    truth = (of % 2).astype(np.float32) if labels is None else labels
    names = [f"patient-{number}" for number in range(int(of[-1]) + 1 if count else 0)]
    return PatientSet(pictures, np.arange(count), truth.reshape(-1, 1), of, names, list(names))


def _read(path: Path, side: int) -> Pictures:
    try:
        with Image.open(path) as image:
            grey = image.convert("L")
    except (OSError, UnidentifiedImageError):
        raise InputError(
            "a picture of the folder", "it cannot be decoded", "Remove it, or give another folder"
        ) from None
    least = min(grey.size)
    left, top = (grey.width - least) // 2, (grey.height - least) // 2
    cut = grey.crop((left, top, left + least, top + least)).resize((side, side), Image.Resampling.BOX)
    return _stretched(np.asarray(cut, dtype=np.float32))


def _small(pixels: npt.NDArray[np.uint16], side: int) -> Pictures:
    step = len(pixels) // side
    return _stretched(pixels.reshape(side, step, side, step).mean(axis=(1, 3), dtype=np.float32))


def _stretched(image: Pictures) -> Pictures:
    low, high = image.min(), image.max()
    return np.asarray((image - low) / max(high - low, 1e-6), dtype=np.float32)
