"""A candidate read as one line, without looking for lines in it first: a second opinion.

The reader's own search for lines cuts the first or last letter off a short word, or passes over it. Read whole, in
two cuts and two or three renderings, a word comes out the same each time, and noise comes out as noise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from client.deid.text.detect import Candidate
from client.deid.text.markers import is_marker
from client.deid.text.reader import read_line
from client.deid.text.windows import Window, renderings

SURE: Final = 0.80
"""Confidence from which a reading counts, as for lines that the reader found by itself."""
AGREE: Final = 2
"""Readings that must say the same."""
LEAST_LETTERS: Final = 3
"""Of a word that is no marker; two letters are read in noise."""
MARGINS: Final = ((0, 0), (4, 12))
"""Pixels beside and along the line; which of the two is better depends on how tightly the detector cut."""
FIRST: Final = 2
"""Renderings read at least, where anything can be read."""
LAST: Final = 3
"""Renderings read at most."""
ECHOES: Final = 5
"""Letters of a marker of which one may be misread without speaking against it."""
UNSURE: Final = 0.50
"""Confidence from which letters are letters, though not which: of 161 places on 1,975 clean images none had as many."""
UNSURE_LETTERS: Final = 4
HOPELESS: Final = 0.5
"""Below this in every one of the first readings, nothing can be read here."""


@dataclass(frozen=True)
class Line:
    """What several readings agree on."""

    text: str
    confidence: float
    marker: bool = False
    sure: bool = True
    """False where letters were read and no word: something for a person."""


def read_whole(
    frame: npt.NDArray[np.integer[Any]], whole: Window, candidate: Candidate
) -> tuple[Line | None, frozenset[str]]:
    """What a candidate says as one line, where readings agree, and every word that was read.

    Args:
        frame: [rows, columns] stored values.
        whole: smallest and largest value of the frame.
        candidate: where.

    Raises:
        FileRefused: `review-reader`.
    """
    said: list[tuple[str, float]] = []
    for number in range(LAST):
        for margin in MARGINS:
            said += _readings(_crop(frame, candidate, margin), whole, number, turned=candidate.turned)
        if max((confidence for _, confidence in said), default=0.0) < HOPELESS:
            break
        found = agreed(said)
        if number + 1 >= FIRST and found is not None:
            return found, _words(said)
    return doubtful(said), _words(said)


def doubtful(said: Iterable[tuple[str, float]]) -> Line | None:
    """Letters in which readings do not agree on a word; none where any of them may be a marker."""
    letters = [(_letters(text), confidence) for text, confidence in said if confidence >= UNSURE]
    if any(is_marker(text) for text, _ in letters):
        return None
    words = [one for one in letters if len(one[0]) >= UNSURE_LETTERS]
    return Line(*max(words, key=lambda one: one[1]), sure=False) if len(words) >= AGREE else None


def agreed(said: Iterable[tuple[str, float]]) -> Line | None:
    """What readings agree on: a marker only when no other word was read as surely, or as often."""
    sure = [(text, confidence) for text, confidence in said if confidence >= SURE and _letters(text)]
    markers = [one for one in sure if is_marker(one[0])]
    others = [one for one in sure if not is_marker(one[0])]
    if len(markers) >= AGREE:
        text, confidence = max(markers, key=lambda one: one[1])
        against = [other for word, other in others if not _echoes(word, markers)]
        if len(markers) > len(against) and confidence > max(against, default=0.0):
            return Line(_letters(text), confidence, marker=True)
    if markers or not others:
        return None
    text, times = Counter(_letters(text) for text, _ in others).most_common(1)[0]
    if times < AGREE or len(text) < LEAST_LETTERS:
        return None
    return Line(text, max(c for t, c in others if _letters(t) == text))


def resembles(text: str, marker: str) -> bool:
    """Whether a text that was read in the place of a marker can be a misreading of it: half its letters right."""
    return distance(_letters(text), marker) <= max(1, len(marker) // 2)


def distance(one: str, other: str) -> int:
    """Letters to change, add or leave out to make one text of the other (Levenshtein 1966)."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, start=1):
        changed = [before + (letter != there) for before, there in zip(row, other, strict=False)]
        new = [number]
        for (_, above), swap in zip(pairwise(row), changed, strict=True):
            new.append(min(new[-1] + 1, above + 1, swap))
        row = new
    return row[-1]


def _echoes(text: str, markers: Iterable[tuple[str, float]]) -> bool:
    """Whether a word is one letter away from a long marker that was read in the same place."""
    word = _letters(text)
    return any(len(one) >= ECHOES and distance(word, one) <= 1 for one in (_letters(m) for m, _ in markers))


def _readings(
    crop: npt.NDArray[np.integer[Any]], whole: Window, number: int, *, turned: bool
) -> Iterator[tuple[str, float]]:
    for picture in islice(renderings(crop, whole), number, number + 1):
        if turned:
            ways = (read_line(np.ascontiguousarray(np.rot90(picture, way))) for way in (1, 3))
            yield max(ways, key=lambda one: one[1])
        else:
            yield read_line(picture)


def _crop(
    frame: npt.NDArray[np.integer[Any]], candidate: Candidate, margin: tuple[int, int]
) -> npt.NDArray[np.integer[Any]]:
    down, aside = reversed(margin) if candidate.turned else margin
    top, left = max(0, candidate.top - down), max(0, candidate.left - aside)
    return frame[top : candidate.bottom + down, left : candidate.right + aside]


def _letters(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum())


def _words(said: Iterable[tuple[str, float]]) -> frozenset[str]:
    return frozenset(text.casefold() for text, _ in said if text)
