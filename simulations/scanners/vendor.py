"""How well a simple classifier names the machine from pixels: as it does with real vendors.

Radial spectrum and histogram of the image's middle half (no marker, no collimation), logistic regression, patients held out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from rich.table import Table

from common.cli import grid
from simulations.phantoms import Projection, draw_patient, draw_pose, render
from simulations.scanners import xray

SIZE: Final = 256
RINGS: Final = 16
TRAINING: Final = 0.6
Sampling = Literal["element", "area"]


@dataclass(frozen=True)
class Recognised:
    """What came out: shares of held-out images whose machine was named."""

    sampling: Sampling
    patients: int
    images: int
    accuracy: float
    by_machine: dict[str, float]


def recognise(
    patients: int, seed: int, sampling: Sampling, rooms: Mapping[str, xray.Site] = xray.SITES
) -> Recognised:
    """Expose the same patients on every machine, fit on six tenths of them, and name the machines of the others."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - takes a second to import
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    features, names, owners = _exposed(patients, seed, sampling, rooms)
    fitting = owners < TRAINING * patients
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit(features[fitting], names[fitting])
    right = model.predict(features[~fitting]) == names[~fitting]
    each = {name: float(right[names[~fitting] == name].mean()) for name in rooms}
    held_out = patients - len(set(owners[fitting].tolist()))
    return Recognised(sampling, held_out, int(right.size), float(right.mean()), each)


def features_of(pixels: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Logarithm of mean spectral power in 16 rings, and shares of 16 grey values; of an image between 0 and 1."""
    side = pixels.shape[0]
    taper = np.outer(np.hanning(side), np.hanning(side))
    power = np.abs(np.fft.fft2((pixels - pixels.mean()) * taper)) ** 2
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
    rings = np.minimum((radius / 0.5 * RINGS).astype(int), RINGS)
    spectrum = np.log([power[rings == ring].mean() + 1e-12 for ring in range(RINGS)])
    histogram, _ = np.histogram(pixels, bins=16, range=(0, 1))
    return np.concatenate([spectrum, histogram / pixels.size])


def table(found: list[Recognised]) -> Table:
    """One line for each sampling."""
    rows = [
        (
            one.sampling,
            one.patients,
            one.images,
            f"{one.accuracy:.3f}",
            *(f"{v:.2f}" for v in one.by_machine.values()),
        )
        for one in found
    ]
    return grid(
        "Machines named from the middle half of the image, patients held out",
        ("sampling", "patients", "images", "accuracy", *xray.SITES),
        rows,
    )


def _exposed(
    patients: int, seed: int, sampling: Sampling, rooms: Mapping[str, xray.Site]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.str_], npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    rows, names, owners = [], [], []
    middle = slice(SIZE // 4, 3 * SIZE // 4)
    for number in range(patients):
        view: Projection = "AP" if number % 2 else "PA"
        patient = draw_patient(rng, number % 3 == 0)
        anatomy = render(patient, view, SIZE, draw_pose(rng, view))
        for name, site in rooms.items():
            placed = replace(site, habits=replace(site.habits, sampling=sampling))
            exposure = xray.draw(rng, placed, view, anatomy.pitch_mm)
            pixels = xray.expose(xray.subject_of(anatomy), exposure)[middle, middle]
            rows.append(features_of(pixels / (2.0**exposure.machine.display.bits)))
            names.append(name)
            owners.append(number)
    return np.array(rows), np.array(names), np.array(owners)
