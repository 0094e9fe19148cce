"""Images with invented names and numbers burned into their pixels, stratum by stratum, and clean ones beside them.

Backgrounds are virtual chests on the virtual scanners, and CT, MR and ultrasound-like pictures made of
ellipses, noise and speckle. Fonts are those that come with OpenCV, Pillow and matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, NamedTuple

import cv2
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from client.deid.text.found import Box
from simulations import phantoms, scanners

Pixels = npt.NDArray[np.uint16]
Modality = Literal["DX", "CT", "MR", "US"]

MODALITIES: Final[tuple[Modality, ...]] = ("DX", "CT", "MR", "US")
CONTRASTS: Final = ("20", "40", "60", "100", "top")
"""Grey levels of 255 between text and what lies under it, when the middle 99% of values fill the range;
`top`: the highest value the image can store."""
HEIGHTS: Final = (8, 11, 16, 24)
"""Of a capital letter, in pixels."""
FONTS: Final = ("plain", "sans", "serif", "mono", "pillow", "complex")
"""OpenCV's Hershey simplex and complex, matplotlib's DejaVu in three cuts, Pillow's own."""
PLACES: Final = ("corner", "edge", "inside", "upright", "downright")
"""The last two are turned by 90 degrees, to the left and to the right."""
MARKERS: Final = ("L", "R", "AP", "PA", "LAT", "SUPINE")
SIZES: Final[Mapping[Modality, int]] = {"DX": 256, "CT": 512, "MR": 256, "US": 384}
BITS: Final[Mapping[Modality, int]] = {"DX": 12, "CT": 12, "MR": 12, "US": 8}
_FAMILIES: Final = ("ABENDROTH", "Quackenbush", "KOWALSKI", "Fitzwilliam", "MARCHETTI", "Sandoval", "OKONKWO")
_GIVEN: Final = ("WILHELMINA", "Ottilie", "JASPER", "Renate", "ADAEZE", "Tobias", "MARIT")


@dataclass(frozen=True, eq=False)
class Case:
    """One image and what stands in it; `box` is None for a clean one, `marker` says that the text may stay."""

    modality: Modality
    pixels: Pixels
    bits: int
    contrast: str = ""
    height: int = 0
    font: str = ""
    place: str = ""
    text: str = ""
    box: Box | None = None
    marker: bool = False


class Stratum(NamedTuple):
    """What is varied, once each."""

    modality: Modality
    contrast: str
    height: int
    font: str
    place: str


def stratum(number: int) -> Stratum:
    """Of the case with this number: each level of a factor once in a round, in an order drawn for that round."""
    factors: tuple[Sequence[object], ...] = (MODALITIES, CONTRASTS, HEIGHTS, FONTS, PLACES)
    drawn = []
    for factor, levels in enumerate(factors):
        turn, at = divmod(number, len(levels))
        drawn.append(levels[int(np.random.default_rng([factor, turn]).permutation(len(levels))[at])])
    return Stratum(*drawn)  # type: ignore[arg-type]  # one of each factor's own levels


def text_cases(count: int, seed: int) -> Iterator[Case]:
    """So many images with text, stratum by stratum."""
    for number in range(count):
        rng = np.random.default_rng([seed, 1, number])
        level = stratum(number)
        pixels = background(level.modality, rng)
        yield _written(Case(level.modality, pixels, BITS[level.modality], *level[1:], words(rng)), rng)


def marker_cases(count: int, seed: int) -> Iterator[Case]:
    """So many images with one listed marker of side or position, well visible, near the upper edge."""
    for number in range(count):
        rng = np.random.default_rng([seed, 2, number])
        modality = MODALITIES[number % 2]
        text, font = MARKERS[(number // 2) % 6], FONTS[(number // 2 + number // 12) % 6]
        case = Case(modality, background(modality, rng), BITS[modality], "100", 16, font, "corner", text)
        yield _written(case, rng, marker=True)


def clean_cases(count: int, seed: int) -> Iterator[Case]:
    """So many images without text, except that a virtual chest shows its letter of side."""
    for number in range(count):
        rng = np.random.default_rng([seed, 3, number])
        modality = MODALITIES[number % 4]
        yield Case(modality, background(modality, rng), BITS[modality])


def background(modality: Modality, rng: np.random.Generator) -> Pixels:
    """An image without text (a chest with its marker): uint16 [rows, columns]."""
    makers: Mapping[Modality, Callable[[np.random.Generator], Pixels]] = {
        "DX": _chest,
        "CT": _slice,
        "MR": _head,
        "US": _sector,
    }
    return makers[modality](rng)


def draw_text(text: str, height: int, font: str) -> npt.NDArray[np.float32]:
    """How much of each pixel the letters cover: float32 [rows, columns] in [0, 1], cut to the ink."""
    cover = _hershey(text, height, font) if font in ("plain", "complex") else _truetype(text, height, font)
    rows, cols = np.flatnonzero(cover.max(axis=1)), np.flatnonzero(cover.max(axis=0))
    cut: npt.NDArray[np.float32] = cover[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    return cut


def _hershey(text: str, height: int, font: str) -> npt.NDArray[np.float32]:
    face = cv2.FONT_HERSHEY_SIMPLEX if font == "plain" else cv2.FONT_HERSHEY_COMPLEX
    thickness = 2 if height >= 16 else 1
    scale = height / 21.0  # Hershey capitals are 21 units high
    (width, tall), below = cv2.getTextSize(text, face, scale, thickness)
    canvas = np.zeros((tall + below + 8, width + 8), np.uint8)
    cv2.putText(canvas, text, (4, tall + 4), face, scale, 255, thickness, cv2.LINE_AA)
    return (canvas / np.float32(255)).astype(np.float32)


def _truetype(text: str, height: int, font: str) -> npt.NDArray[np.float32]:
    face = _face(font, round(height / 0.73))  # capitals are 0.73 of the size in DejaVu, about so in Pillow's
    left, top, right, bottom = face.getbbox(text)
    canvas = Image.new("L", (int(right - left) + 8, int(bottom - top) + 8))
    ImageDraw.Draw(canvas).text((4 - left, 4 - top), text, fill=255, font=face)
    return (np.asarray(canvas) / np.float32(255)).astype(np.float32)


@lru_cache(maxsize=64)
def _face(font: str, size: int) -> ImageFont.FreeTypeFont:
    if font == "pillow":
        return ImageFont.load_default(size)  # type: ignore[return-value]  # FreeType is in every wheel
    file = {"sans": "DejaVuSans.ttf", "serif": "DejaVuSerif.ttf", "mono": "DejaVuSansMono-Bold.ttf"}[font]
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / file), size)


def words(rng: np.random.Generator) -> str:
    """A name, number or date of nobody, as it stands on images."""
    family, given = rng.choice(_FAMILIES), rng.choice(_GIVEN)
    day = f"{rng.integers(1930, 2012)}-{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d}"
    forms = (
        f"{family} {given}",
        f"{family}, {given[0]}",
        f"{family}^{given}",
        f"ID {rng.integers(10**6, 10**7)}",
        f"{family} {day[:4]}",
        f"DOB {day}",
    )
    return str(forms[int(rng.integers(len(forms)))])


def _written(case: Case, rng: np.random.Generator, *, marker: bool = False) -> Case:
    rows, cols = case.pixels.shape
    turned = case.place in ("upright", "downright")
    cover, text = draw_text(case.text, case.height, case.font), case.text
    while cover.shape[1] > (rows if turned else cols) - 12:
        text = text[:-1]
        cover = draw_text(text, case.height, case.font)
    if turned:
        cover = np.rot90(cover, 1 if case.place == "upright" else 3)
    top, left = _corner(case.place, (rows, cols), cover.shape, rng)
    box = Box(0, top, left, top + cover.shape[0], left + cover.shape[1])
    level = _level(case, case.pixels[box.top : box.bottom, box.left : box.right], rng)
    pixels = case.pixels.astype(np.float32)
    under = pixels[box.top : box.bottom, box.left : box.right]
    under += cover * (level - under)
    stored = np.clip(np.rint(pixels), 0, 2**case.bits - 1).astype(np.uint16)
    return Case(
        case.modality,
        stored,
        case.bits,
        case.contrast,
        case.height,
        case.font,
        case.place,
        text,
        box,
        marker,
    )


def _corner(
    place: str, image: tuple[int, int], ink: tuple[int, ...], rng: np.random.Generator
) -> tuple[int, int]:
    rooms = (image[0] - ink[0] - 8, image[1] - ink[1] - 8)
    if place == "corner":
        return 4 + int(rng.integers(2)) * rooms[0], 4 + int(rng.integers(2)) * rooms[1]
    if place == "edge":
        return 4 + int(rng.integers(2)) * rooms[0], 4 + int(rng.integers(rooms[1] + 1))
    return 4 + int(rng.integers(rooms[0] + 1)), 4 + int(rng.integers(rooms[1] + 1))


def _level(case: Case, under: Pixels, rng: np.random.Generator) -> float:
    """The one value that text is written in: bright or dark as the range has room, except at the top."""
    highest = float(2**case.bits - 1)
    if case.contrast == "top":
        return highest
    low, high = np.percentile(case.pixels, (0.5, 99.5))
    step = float(case.contrast) / 255 * max(float(high - low), 1.0)
    ground = float(np.median(under))
    room = [sign for sign in (1, -1) if 0 <= ground + sign * step <= highest]
    sign = room[int(rng.integers(len(room)))] if room else 1
    return float(np.clip(ground + sign * step, 0, highest))


def _chest(rng: np.random.Generator) -> Pixels:
    patient = phantoms.draw_patient(rng, bool(rng.integers(2)))
    projection: phantoms.Projection = "AP" if rng.random() < 0.4 else "PA"
    anatomy = phantoms.render(patient, projection, pose=phantoms.draw_pose(rng, projection))
    names = sorted(scanners.SCANNERS)
    scanner = scanners.SCANNERS[names[int(rng.integers(len(names)))]]
    pixels = scanners.apply(anatomy, scanners.draw(rng, scanner))
    return np.right_shift(pixels, max(0, scanner.bits - BITS["DX"])).astype(np.uint16)


def _slice(rng: np.random.Generator) -> Pixels:
    """An axial slice: air, body, lungs, spine, table; stored as HU + 1024 with correlated noise."""
    size = SIZES["CT"]
    hu = np.full((size, size), -1000.0, np.float32)
    wide, tall = rng.uniform(0.6, 0.85), rng.uniform(0.45, 0.62)
    hu[_ellipse(size, (0, 0), (wide, tall))] = -80
    hu[_ellipse(size, (0, 0), (wide - 0.06, tall - 0.06))] = 50
    for side in (-1, 1):
        hu[_ellipse(size, (-0.05, side * wide * 0.48), (wide * 0.34, tall * 0.7))] = -840
    hu[_ellipse(size, (tall * 0.62, 0), (0.09, 0.09))] = 380
    for _ in range(int(rng.integers(6, 14))):
        turn = rng.uniform(0, 2 * np.pi)
        place = (np.sin(turn) * (tall - 0.07), np.cos(turn) * (wide - 0.07))
        hu[_ellipse(size, place, (0.045, 0.02))] = 450
    for _ in range(int(rng.integers(10, 40))):
        hu[_ellipse(size, (rng.uniform(-0.4, 0.4), rng.uniform(-0.6, 0.6)), (0.012, 0.012))] = 60
    hu[int(size * (0.52 + tall / 2)) :][:4] = -300
    noise = ndimage.gaussian_filter(rng.normal(0, 1, hu.shape), rng.uniform(0.5, 0.9))
    hu = ndimage.gaussian_filter(hu, 0.8) + noise.astype(np.float32) * rng.uniform(15, 60) / noise.std()
    stored: Pixels = np.clip(hu + 1024, 0, 4095).astype(np.uint16)
    return stored


def _head(rng: np.random.Generator) -> Pixels:
    """A brain-like slice: scalp, skull, folded grey and white matter, ventricles, a coil's shade, Rician noise."""
    size = SIZES["MR"]
    wide, tall = rng.uniform(0.6, 0.75), rng.uniform(0.75, 0.9)
    picture = np.zeros((size, size), np.float32)
    for scale, value in ((1.0, 900), (0.93, 150), (0.87, 550)):
        picture[_ellipse(size, (0, 0), (wide * scale, tall * scale))] = value
    folds = ndimage.gaussian_filter(rng.normal(0, 1, (size, size)), 3.0)
    inside = _ellipse(size, (0, 0), (wide * 0.85, tall * 0.85))
    picture[inside] += np.where(folds > 0, 220.0, 0.0)[inside].astype(np.float32)
    for side in (-1, 1):
        picture[_ellipse(size, (0, side * 0.09), (0.05, 0.2))] = 180
    shade = ndimage.gaussian_filter(rng.normal(0, 1, (size, size)), size / 4)
    picture = ndimage.gaussian_filter(picture, 0.7) * (1 + 0.3 * shade / np.abs(shade).max())
    noisy = np.hypot(picture + rng.normal(0, 18, picture.shape), rng.normal(0, 18, picture.shape))
    stored: Pixels = np.clip(noisy * rng.uniform(0.5, 2.5), 0, 4095).astype(np.uint16)
    return stored


def _sector(rng: np.random.Generator) -> Pixels:
    """A sector of speckle on black with a grey wedge and a scale at its side."""
    size = SIZES["US"]
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    radius, angle = np.hypot(y - 0.02, x - 0.5), np.arctan2(x - 0.5, y - 0.02)
    inside = (radius > 0.12) & (radius < 0.92) & (np.abs(angle) < 0.62)
    tissue = ndimage.gaussian_filter(rng.normal(0, 1, (size, size)), 12)
    echo = ndimage.gaussian_filter(rng.rayleigh(1, (size, size)), (0.8, 1.6))
    grey = 60 + 90 * tissue / np.abs(tissue).max() + 60 * (echo / echo.mean() - 1)
    picture = np.where(inside, np.clip(grey, 0, 235), 0)
    picture[40:240, 8:16] = np.linspace(235, 0, 200)[:, None]
    picture[40:350:31, -10:-4] = 180
    return picture.astype(np.uint16)


def _ellipse(size: int, at: tuple[float, float], axes: tuple[float, float]) -> npt.NDArray[np.bool_]:
    """Where an ellipse lies: centre (down, right) and half axes (right, down), in half sides of the image."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    inside: npt.NDArray[np.bool_] = ((x - at[1]) / axes[0]) ** 2 + ((y - at[0]) / axes[1]) ** 2 < 1
    return inside
