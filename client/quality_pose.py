"""Whether a frontal chest stands upright and is no negative, judged by its pixels.

The image is cropped to its field, brought to 16 x 16 cells and each cell to its rank, so that neither
exposure nor window matters. One template of 16 x 16 weights, which looks like a faint chest, is then laid on
it in all four quarter turns, as a positive and as a negative. The image counts as standing in the way
in which the template fits best; a person is asked where another way fits clearly better than upright, or where
none fits at all, as with a lateral view or another part of the body. A mirrored chest is not found:
a heart on the right is rare, not wrong; what tags say of sides is judged in `client.quality_tags`.

`quality_pose.toml` holds the template and the command that fitted it; `docs/quality.md` how often it errs.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from client.quality import QualityReport
from client.quality_hash import area_means
from client.quality_tags import FRONTAL

CELLS: Final = 16
SIDE: Final = 64
LEAST_SIDE: Final = 64
"""Smaller images are not judged."""
BODY_PARTS: Final = frozenset({"CHEST", "THORAX", "LUNG", "LUNGS", "CHEST_ABDOMEN"})
RADIOGRAPHS: Final = frozenset({"CR", "DX"})
_EDGE: Final = 0.05
"""Rows and columns at the border that vary by less than this share of the range are no field."""
_TURNS: Final = ("", "a quarter turn to the left", "upside down", "a quarter turn to the right")
_REMEDY: Final = "Look at it: turn it at the source and send it again, or release it if it is right"

Cells = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Template:
    """The weights and the limits that were fitted with them."""

    weights: Cells
    """[16, 16]: positive where a frontal upright chest is bright."""
    margin: float
    """By how much another way must fit better than upright, in log odds."""
    margin_both: float
    """The same for turned and negative at once, which is rarer than either."""
    least: float
    """A frontal chest fits at least so well in its best way."""


@dataclass(frozen=True)
class Pose:
    """How a chest seems to stand."""

    turns: int
    """Quarter turns to the left of what is upright, 0 to 3."""
    negative: bool
    margin: float
    """How much better this way fits than upright, in log odds; 0: upright fits best."""
    fit: float
    """How well it fits."""


def check_pose(pixels: npt.NDArray[np.float32], header: Dataset) -> QualityReport:
    """Judge a frontal chest radiograph; anything else passes.

    Args:
        pixels: [rows, columns] or [frames, rows, columns] in modality units; of frames the middle one is judged.
        header: of the de-identified image: modality, body part, view and photometric interpretation.

    Returns:
        ok, or `review-orientation`, `review-inverted` or `review-projection`; its figures are `pose_margin` and
        `pose_fit`.
    """
    image = pixels[len(pixels) // 2] if pixels.ndim == 3 else pixels
    if not _is_frontal_chest(header) or min(image.shape) < LEAST_SIDE:
        return QualityReport(ok=True)
    found = pose(image, negative=header.get("PhotometricInterpretation") == "MONOCHROME1")
    figures = {"pose_margin": round(found.margin, 3), "pose_fit": round(found.fit, 3)}
    problem = problem_of(found)
    if problem is None:
        return QualityReport(ok=True, figures=figures)
    code, rule = problem
    return QualityReport(ok=False, code=code, rule=rule, remedy=_REMEDY, figures=figures)


def pose(image: npt.NDArray[np.float32], *, negative: bool = False) -> Pose:
    """How a chest stands.

    Args:
        image: [rows, columns], both at least 64, in any unit.
        negative: whether high values are meant to be dark (MONOCHROME1).
    """
    scores = ways(cells(image)[None])[0]
    if negative:
        scores = np.roll(scores, 4)
    best = int(np.argmax(scores))
    return Pose(best % 4, best >= 4, float(scores[best] - scores[0]), float(scores[best]))


def problem_of(found: Pose) -> tuple[str, str] | None:
    """Code and rule of what a person should look at, or None."""
    limits = template()
    if found.fit < limits.least:
        return "review-projection", "its tags say frontal chest and its pixels look like none"
    turned = found.turns != 0
    if found.margin <= (limits.margin_both if turned and found.negative else limits.margin):
        return None
    if found.negative:
        return "review-inverted", "it seems to be a negative: what should be dark is bright"
    return "review-orientation", f"the chest seems to lie {_TURNS[found.turns]}"


def cells(image: npt.NDArray[np.float32]) -> Cells:
    """The field of one image as [16, 16] ranks from -1 to 1."""
    small = area_means(_field(area_means(image, SIDE)), 2 * CELLS)
    values, place, counts = np.unique(small, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2) / small.size * 2 - 1
    ranked = ranks[place].reshape(len(small) // 2, 2, len(small) // 2, 2)
    return np.asarray(ranked.mean(axis=(1, 3)) if len(values) > 1 else ranked[:, 0, :, 0], dtype=np.float32)


def ways(images: Cells, weights: Cells | None = None) -> Cells:
    """How well each of the images [n, 16, 16] fits: [n, 8], four turns as positives, then as negatives.

    Args:
        images: of `cells`.
        weights: [16, 16] of another template than that of this release.
    """
    fits = images.reshape(len(images), -1) @ (_turned() if weights is None else _turns(weights))
    return np.concatenate([fits, -fits], axis=1)


@lru_cache(maxsize=1)
def template() -> Template:
    """What comes with this release."""
    path = Path(__file__).with_name("quality_pose.toml")
    raw: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    return Template(
        np.array(raw["weights"], dtype=np.float32), raw["margin"], raw["margin_both"], raw["least"]
    )


@lru_cache(maxsize=1)
def _turned() -> Cells:
    return _turns(template().weights)


def _turns(weights: Cells) -> Cells:
    return np.stack([np.rot90(weights, turn).ravel() for turn in range(4)], axis=1)


def _field(small: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Without the even border that a collimator or an export leaves, where most of the image remains."""
    least = _EDGE * float(np.ptp(small))
    rows, cols = (np.flatnonzero(np.ptp(small, axis=axis) > least) for axis in (1, 0))
    if min(len(rows), len(cols)) < len(small) // 2:
        return small
    return small[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]


def _is_frontal_chest(header: Dataset) -> bool:
    view = str(header.get("ViewPosition") or "").upper()
    part = str(header.get("BodyPartExamined") or "").upper()
    return header.get("Modality") in RADIOGRAPHS and part in BODY_PARTS and (not view or view in FRONTAL)
