"""How much burned-in text the client's own code finds, stratum by stratum, and what it makes of clean images.

Every image goes through `client.deid.text.clean`, as in a hospital. Found means blanked or sent to a person;
blanked means that nine tenths of the ink are gone.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from rich.table import Table

from client.deid.settings import DeidSettings
from client.deid.text.clean import clean
from client.deid.text.detect import candidates
from client.deid.text.found import Box, Cleaned, TextReview
from common.cli import grid
from common.errors import DataError
from simulations.text_corpus import Case, clean_cases, marker_cases, text_cases
from simulations.text_images import read_image

SHARE_BLANKED: Final = 0.9
CLEAN_SHARE: Final = 3
"""One clean image for so many with text, and at least `FEWEST` of them."""
FEWEST: Final = 40
_Z: Final = 1.959964
"""Quantile of the normal distribution for an interval of 95%."""
_STRATA: Final = ("contrast", "height", "font", "place", "modality")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Share:
    """A part of a count with its Wilson interval of 95%."""

    part: int
    whole: int
    low: float
    high: float

    @classmethod
    def of(cls, part: int, whole: int) -> Share:
        """The share and its interval (Wilson 1927); 0 to 1 where nothing was counted."""
        if not whole:
            return cls(0, 0, 0.0, 1.0)
        p, denominator = part / whole, 1 + _Z**2 / whole
        middle = (p + _Z**2 / (2 * whole)) / denominator
        half = _Z * float(np.sqrt(p * (1 - p) / whole + _Z**2 / (4 * whole**2))) / denominator
        return cls(part, whole, max(0.0, middle - half), min(1.0, middle + half))

    def __str__(self) -> str:
        return f"{self.part}/{self.whole} {_percent(self.part, self.whole)} [{self.low:.0%}, {self.high:.0%}]"


@dataclass(frozen=True)
class Stratum:
    """One level of one factor."""

    factor: str
    level: str
    found: Share
    blanked: Share


@dataclass(frozen=True)
class Clean:
    """Images without text, or with a marker only."""

    kind: str
    asked: Share
    """Sent to the reader by the detector."""
    review: Share
    """Sent to a person."""
    blanked: Share
    """Something was blanked in it."""
    milliseconds: float
    """Of processor time an image."""
    milliseconds_unasked: float
    """Of those that never met the reader."""


@dataclass(frozen=True)
class Recall:
    """All that was measured."""

    cases: int
    seed: int
    found: Share
    blanked: Share
    found_clear: Share
    """Where contrast is at least 60 grey levels."""
    strata: tuple[Stratum, ...]
    clean: tuple[Clean, ...]
    milliseconds: float
    """Of processor time an image with text."""


@dataclass(frozen=True)
class _Result:
    found: bool
    blanked: bool
    any_blank: bool
    review: bool
    asked: bool
    seconds: float


def text_recall(
    cases: int, seed: int, progress: Progress, images: Path | None = None, markers: int | None = None
) -> Recall:
    """Measure recall on generated cases, and false alarms on generated clean images and on a folder's.

    Args:
        cases: images with text, at least one a stratum.
        seed: the same seed makes the same images.
        progress: called with images done and images in all.
        images: a folder of DICOM, PNG or JPEG believed to be without readable text; counted apart.
        markers: images with a marker of side; as many as clean ones when None.

    Raises:
        DataError: the folder holds no image that can be read.
    """
    others = max(FEWEST, cases // CLEAN_SHARE)
    marked = others if markers is None else markers
    total = cases + others + marked
    texts = _measured(text_cases(cases, seed), progress, (0, total))
    empty = _measured(clean_cases(others, seed), progress, (cases, total))
    marks = _measured(marker_cases(marked, seed), progress, (cases + others, total))
    kinds = [_clean(f"clean {m}", [r for c, r in empty if c.modality == m]) for m in ("DX", "CT", "MR", "US")]
    kinds.append(_clean("with a listed marker", [r for _, r in marks]))
    if images is not None:
        kinds += _folder(images)
    results = [r for _, r in texts]
    return Recall(
        cases=cases,
        seed=seed,
        found=_share(results, "found"),
        blanked=_share(results, "blanked"),
        found_clear=_share([r for c, r in texts if c.contrast in ("60", "100", "top")], "found"),
        strata=tuple(_strata(texts)),
        clean=tuple(kinds),
        milliseconds=_milliseconds(results),
    )


def table(recall: Recall) -> Table:
    """One row a stratum, then the clean images."""
    rows: list[Sequence[object]] = [
        ("all", "", recall.found, recall.blanked),
        ("contrast", "60 and more", recall.found_clear, None),
    ]
    rows += [(s.factor, s.level, s.found, s.blanked) for s in recall.strata]
    rows += [
        (c.kind, f"{c.milliseconds:.1f} ms", f"to a person {c.review}", f"{c.blanked}") for c in recall.clean
    ]
    return grid("Burned-in text", ("factor", "level", "found", "blanked"), rows)


def as_markdown(recall: Recall) -> str:
    """The tables of docs/burned-in-text.md."""
    lines = ["| factor | level | found | blanked |", "| --- | --- | --- | --- |"]
    lines.append(f"| all | | {recall.found} | {recall.blanked} |")
    lines.append(f"| contrast | 60 and more | {recall.found_clear} | |")
    lines += [f"| {s.factor} | {s.level} | {s.found} | {s.blanked} |" for s in recall.strata]
    lines += ["", "| images without text | to the reader | to a person | something blanked |"]
    lines += ["| --- | --- | --- | --- |"]
    lines += [f"| {c.kind} | {c.asked} | {c.review} | {c.blanked} |" for c in recall.clean]
    return "\n".join(lines) + "\n"


def _measured(
    cases: Iterable[Case], progress: Progress, place: tuple[int, int]
) -> list[tuple[Case, _Result]]:
    done = []
    for number, case in enumerate(cases, start=1):
        done.append((case, _result(case.pixels, case.box)))
        progress(place[0] + number, place[1])
    return done


def _result(pixels: npt.NDArray[Any], box: Box | None) -> _Result:
    begun = _processor_s()
    review, cleaned = False, Cleaned(pixels)
    try:
        cleaned = clean(pixels, Dataset(), DeidSettings())
    except TextReview:
        review = True
    seconds = _processor_s() - begun
    gone = box is not None and _ink_gone(pixels, cleaned, box)
    asked = review or bool(cleaned.hits) or bool(candidates(pixels if pixels.ndim == 2 else pixels[0]))
    return _Result(review or gone, gone, bool(cleaned.blanked), review, asked, seconds)


def _ink_gone(pixels: npt.NDArray[Any], cleaned: Cleaned, box: Box) -> bool:
    """Whether nine tenths of the box of ink lie under what was blanked."""
    under = np.zeros(pixels.shape, np.bool_)
    for one in cleaned.blanked:
        under[one.top : one.bottom, one.left : one.right] = True
    return bool(under[box.top : box.bottom, box.left : box.right].mean() >= SHARE_BLANKED)


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _strata(texts: Sequence[tuple[Case, _Result]]) -> Iterator[Stratum]:
    for factor in _STRATA:
        levels = dict.fromkeys(str(getattr(case, factor)) for case, _ in texts)
        for level in sorted(levels, key=lambda word: (not word.isdigit(), word.zfill(4))):
            own = [r for case, r in texts if str(getattr(case, factor)) == level]
            yield Stratum(factor, level, _share(own, "found"), _share(own, "blanked"))


def _clean(kind: str, results: Sequence[_Result]) -> Clean:
    return Clean(
        kind,
        _share(results, "asked"),
        _share(results, "review"),
        _share(results, "any_blank"),
        _milliseconds(results),
        _milliseconds([r for r in results if not r.asked]),
    )


def _folder(images: Path) -> Iterator[Clean]:
    by_kind: dict[str, list[_Result]] = {}
    for path in sorted(images.rglob("*")):
        read = read_image(path) if path.is_file() else None
        if read is not None:
            by_kind.setdefault(f"folder, {read[0]}", []).append(_result(read[1], None))
    if not by_kind:
        raise DataError("the folder of images", "it holds no image that can be read", "Name another folder")
    for kind, results in sorted(by_kind.items()):
        yield _clean(kind, results)


def _share(results: Sequence[_Result], what: str) -> Share:
    return Share.of(sum(bool(getattr(r, what)) for r in results), len(results))


def _milliseconds(results: Sequence[_Result]) -> float:
    return round(1e3 * float(np.mean([r.seconds for r in results])), 1) if results else 0.0


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"
