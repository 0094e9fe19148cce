"""Names drawn into pixels, and how to see whether they can still be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from tests.client.acceptance.case import BLANKED, REVIEW, STORAGE, Canary, Case, Make, attributes, base
from tests.client.intake_files import chest, set_pixels, to_bytes

SIZE: Final = 512
"""Pixels a side."""
FONT: Final = 30
"""Pixels of height; text on radiographs has 20 to 60 of 2,000 to 4,000, shown smaller."""

AT: Final = (30, 40)
"""Column and row where a text begins."""


def mask(text: str, shape: tuple[int, int], at: tuple[int, int], *, upright: bool = True) -> np.ndarray:
    """Where the letters are: [rows, cols] float in 0 to 1."""
    picture = Image.new("L", (shape[1], shape[0]))
    ImageDraw.Draw(picture).text(at, text, fill=255, font=ImageFont.load_default(FONT))
    drawn = np.asarray(picture, dtype=np.float64) / 255
    return drawn if upright else np.rot90(drawn).copy()


def write_on(
    pixels: np.ndarray, text: str, at: tuple[int, int], value: int, *, upright: bool = True
) -> np.ndarray:
    """The image with a text in grey value `value`: [rows, cols] uint16."""
    letters = mask(text, pixels.shape, at, upright=upright)
    return np.clip(pixels * (1 - letters) + value * letters, 0, 4095).astype("<u2")


def _burned(
    value: int, *, upright: bool = True, uid: str = "1", modality: str = "CR", inverted: bool = False
) -> Make:
    def make(canary: Canary) -> bytes:
        ds = base(canary, SOPClassUID=STORAGE + uid, Modality=modality)
        pixels = write_on(chest(canary.number, SIZE), label(canary), AT, value, upright=upright)
        set_pixels(ds, 4095 - pixels if inverted else pixels)
        if inverted:
            ds.PhotometricInterpretation = "MONOCHROME1"
        return to_bytes(ds)

    return make


def label(canary: Canary) -> str:
    """What a modality writes into a corner."""
    return f"{canary.family.upper()} {canary.given.upper()}"


def faint(canary: Canary) -> bytes:
    """A name some sixty grey levels of 256 above what lies under it."""
    background = chest(canary.number, SIZE).astype(np.int64)
    letters = mask(label(canary), background.shape, AT)
    ds = base(canary)
    set_pixels(ds, np.clip(background + 1000 * letters, 0, 4095).astype("<u2"))
    return to_bytes(ds)


def one_frame(canary: Canary) -> bytes:
    """Eight frames; the sixth alone has the name."""
    frames = [chest(canary.number + n, SIZE) for n in range(8)]
    frames[5] = write_on(frames[5], label(canary), AT, 4000)
    ds = base(canary)
    set_pixels(ds, frames[0])
    ds.NumberOfFrames, ds.PixelData = 8, np.stack(frames).astype("<u2").tobytes()
    return to_bytes(ds)


def markers(canary: Canary) -> bytes:
    """L and R with AP, as technologists put them on: they name a side, not a person."""
    pixels = write_on(chest(canary.number, SIZE), "R", (40, 40), 4000)
    pixels = write_on(pixels, "L", (SIZE - 70, 40), 4000)
    ds = base(canary, StudyDescription=canary.word)
    set_pixels(ds, write_on(pixels, "AP", (40, SIZE - 80), 4000))
    return to_bytes(ds)


def markers_stay(source: Dataset, kept: Dataset) -> None:
    """Every pixel is what it was."""
    assert np.array_equal(source.pixel_array, kept.pixel_array)


def letters_gone(*, upright: bool = True, frame: int | None = None) -> Callable[[Dataset, Dataset], None]:
    """A law: of the letters drawn into a source nothing can be read in what was kept."""

    def check(source: Dataset, kept: Dataset) -> None:
        before, after = (ds.pixel_array if frame is None else ds.pixel_array[frame] for ds in (source, kept))
        text = str(source.PatientName).replace("^", " ").upper()
        letters = mask(text, before.shape, AT, upright=upright)
        assert legible(before, after, letters) < 0.1

    return check


def legible(source: np.ndarray, kept: np.ndarray, letters: np.ndarray) -> float:
    """What is left of drawn letters: 1 when they are as they were, near 0 when they were blanked."""
    box = np.argwhere(letters > 0.1)
    (top, left), (bottom, right) = box.min(axis=0), box.max(axis=0) + 1
    inside = np.s_[top:bottom, left:right]
    before, after = (_covariance(pixels[inside], letters[inside]) for pixels in (source, kept))
    return abs(after) / max(abs(before), 1e-9)


def _covariance(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a - a.mean()) * (b - b.mean())).mean())


def _named(kind: str, place: str, make: Make, **law: bool | int) -> Case:
    return Case(kind, place, make, outcome=BLANKED, check=letters_gone(**law))


CASES: Final = (
    _named("name on a radiograph", "white letters in a corner", _burned(4000)),
    _named("name on MONOCHROME1", "letters on an inverted radiograph", _burned(4000, inverted=True)),
    _named("dark name", "black letters on a bright field", _burned(0)),
    _named("faint name", "letters sixty grey levels of 256 above their ground", faint),
    _named(
        "name on its side", "letters turned by ninety degrees", _burned(4000, upright=False), upright=False
    ),
    _named("name on CT", "white letters on a slice", _burned(4000, uid="2", modality="CT")),
    _named("name on one frame", "the sixth of eight frames", one_frame, frame=5),
    Case(
        "says that text is burned in",
        "BurnedInAnnotation YES",
        attributes(BurnedInAnnotation="YES", StudyDescription="{word}"),
        outcome=REVIEW,
    ),
    Case("side markers", "L, R and AP, which must stay", markers, check=markers_stay),
)
