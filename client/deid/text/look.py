"""Detector, then reader, on every distinct frame: what stands in an image, as places and, here only, as words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from client.deid.text.detect import TURNED, Candidate, candidates
from client.deid.text.found import Box, Hit
from client.deid.text.line import Line, read_whole, resembles
from client.deid.text.markers import is_marker
from client.deid.text.reader import Word, read
from client.deid.text.windows import Window, renderings

SURE: Final = 0.80
"""Confidence of the reader from which a word is taken for one and blanked."""
UNSURE: Final = 0.50
"""Confidence from which a person should look; below, the reader saw letters in noise."""
SURE_LETTERS: Final = 2
UNSURE_LETTERS: Final = 3
"""Letters or digits of a word, at least; single letters in anatomy are read everywhere."""
PLAIN: Final = 4.5
"""Strength of a candidate from which it goes to a person even when the reader reads nothing."""
PLAIN_SHORT: Final = 9.0
"""The same for one that is less than `LINE` times as long as high."""
LEAST_LINE: Final = 6
"""Pixels across, below which there are no letters, but an edge of the anatomy."""
LINE: Final = 2
ENLARGED: Final = 36
"""Pixels of a line's height, with its margin, as the reader likes it."""
MOST_ZOOM: Final = 4.0
AHEAD: Final = 2
"""Heights by which a line is read on at both ends, where its letters may be too faint for the detector."""
MANY: Final = 10
"""Candidates from which the whole frame is read at once."""
FEW, ALL = 1, 6
"""Renderings in which a faint candidate is read, and a plain one. Of 196 candidates with text the first reads 151
surely, all together 156."""
STRIP: Final = 2
"""Renderings of the rest of a line in which text was read; there a word need not be sure to count."""
WHOLE_ZOOM: Final = 2.0

Frame = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Seen:
    """What one frame shows: hits, and the words read, which stay in this process."""

    hits: tuple[Hit, ...] = ()
    words: frozenset[str] = frozenset()


@dataclass
class Looker:
    """Looks at frames and remembers those of the last two images, so that equal ones cost nothing."""

    _now: dict[bytes, Seen] = field(default_factory=dict)
    _before: dict[bytes, Seen] = field(default_factory=dict)

    def look(self, frames: Sequence[Frame], header: Window | None = None) -> list[Seen]:
        """What every frame of one image shows; `Box.frame` counts them."""
        self._before, self._now = self._now, {}
        return [self._frame(number, frame, header) for number, frame in enumerate(frames)]

    def _frame(self, number: int, frame: Frame, header: Window | None) -> Seen:
        name = (
            hashlib.blake2b(np.ascontiguousarray(frame).data, digest_size=16).digest()
            + repr(frame.shape).encode()
        )
        known = self._now.get(name) or self._before.get(name)
        if known is None:
            known = _seen(frame, header)
        self._now[name] = known
        hits = tuple(Hit(h.box._replace(frame=number), h.confidence, h.kind) for h in known.hits)
        return Seen(hits, known.words)


def _seen(frame: Frame, header: Window | None) -> Seen:
    found = candidates(frame)
    if not found:
        return Seen()
    place = _Place(frame, (float(frame.min()), float(frame.max())), header)
    hits: list[Hit] = []
    words: set[str] = set()
    if len(found) > MANY:
        everything = Candidate(0.0, 0, 0, *frame.shape)
        lines = list(place.lines(everything, 2, zoom=WHOLE_ZOOM))
        hits += _judged(lines, everything)
        words.update(line.text.casefold() for line in lines)
        found = [c for c in found if not any(_covers(hit.box, c) for hit in hits)]
    hits += (Hit(Box(0, *c.box), 0.0, "unread") for c in found[MANY:] if _is_plain(c))
    for candidate in found[:MANY]:
        lines = list(place.lines(candidate, ALL if candidate.strength >= PLAIN else FEW))
        judged = list(_judged(lines, candidate))
        words.update(line.text.casefold() for line in lines)
        if not judged or any(hit.kind != "marker" for hit in judged):
            second, further = read_whole(frame, place.whole, candidate)
            words.update(further)
            judged = judged if second is None else list(_settled(judged, lines, candidate, second))
        hits += judged
    for strip in _strips(hits, frame.shape):
        lines = list(place.lines(strip, STRIP))
        hits += (
            Hit(hit.box, hit.confidence, "text") for hit in _judged(lines, strip) if hit.kind != "marker"
        )
        words.update(line.text.casefold() for line in lines)
    return Seen(tuple(hits), frozenset(words))


def _strips(hits: Sequence[Hit], shape: tuple[int, ...]) -> list[Candidate]:
    """Where text was read, the whole row or column of the frame: a line goes on where the detector lost it."""
    strips = []
    for hit in hits:
        if hit.kind == "text":
            _, top, left, bottom, right = hit.box
            strip = (
                (0, left, shape[0], right)
                if bottom - top > TURNED * (right - left)
                else (top, 0, bottom, shape[1])
            )
            strips.append(Candidate(0.0, *strip))
    return list(dict.fromkeys(strips))[:MANY]


def _judged(lines: Sequence[Word], candidate: Candidate) -> Iterator[Hit]:
    """What a person or a blank must deal with, and the markers that stay."""
    left_over = _is_plain(candidate)
    for line in lines:
        box = Box(0, line.top, line.left, line.bottom, line.right)
        if is_marker(line.text):
            left_over = False
            if line.confidence >= UNSURE:
                yield Hit(box, line.confidence, "marker")
        elif _is_sure(line):
            left_over = False
            yield Hit(_joined(box, candidate), line.confidence, "text")
        elif line.confidence >= UNSURE and _letters(line.text) >= UNSURE_LETTERS:
            left_over = False
            yield Hit(box, line.confidence, "unread")
    if left_over:
        yield Hit(Box(0, *candidate.box), 0.0, "unread")


def _settled(
    judged: Sequence[Hit], lines: Sequence[Word], candidate: Candidate, second: Line
) -> Iterator[Hit]:
    """The verdict with the second opinion: a marker clears what misread it, a word settles what was not read."""
    inside = [line for line in lines if _meets(line, candidate)]
    whole = Box(0, *candidate.box)
    if second.marker and all(_gives_way(line, second) for line in inside):
        yield Hit(whole, second.confidence, "marker")
        places = {(line.top, line.left, line.bottom, line.right) for line in inside}
        outside = [line for line in lines if (line.top, line.left, line.bottom, line.right) not in places]
        yield from _judged(outside, replace(candidate, strength=0.0))
        return
    read_already = any(hit.kind == "text" for hit in judged)
    if second.marker or read_already or (judged and not second.sure):
        yield from judged
        return
    yield from (hit for hit in judged if not _covers(hit.box, candidate))
    yield Hit(whole, second.confidence, "text" if second.sure else "unread")


def _gives_way(line: Word, marker: Line) -> bool:
    """Whether a line may be what a marker was misread as: it resembles it, or was no longer and not read surely."""
    short = _letters(line.text) <= len(marker.text) + 1
    return resembles(line.text, marker.text) or (short and line.confidence < SURE)


def _meets(line: Word, c: Candidate) -> bool:
    return min(line.bottom, c.bottom) > max(line.top, c.top) and min(line.right, c.right) > max(
        line.left, c.left
    )


def _is_plain(c: Candidate) -> bool:
    """Whether a person should see it even when nothing is read in it; one or two letters name nobody."""
    sides = sorted((c.height, c.width))
    if sides[0] < LEAST_LINE:
        return False
    return c.strength >= (PLAIN if sides[1] >= LINE * sides[0] else PLAIN_SHORT)


def _joined(box: Box, c: Candidate) -> Box:
    """The line as read, longer where the detector saw it go on."""
    if c.strength == 0.0 or not _covers(Box(0, *c.box), Candidate(0, *box[1:])):
        return box
    return Box(
        0, min(box.top, c.top), min(box.left, c.left), max(box.bottom, c.bottom), max(box.right, c.right)
    )


def _covers(box: Box, c: Candidate) -> bool:
    high = min(box.bottom, c.bottom) - max(box.top, c.top)
    wide = min(box.right, c.right) - max(box.left, c.left)
    return high > 0 and wide > 0 and 2 * high * wide >= c.height * c.width


@dataclass(frozen=True, eq=False)
class _Place:
    """A frame and the windows in which its parts are read."""

    frame: Frame
    whole: Window
    header: Window | None

    def lines(self, candidate: Candidate, tries: int, zoom: float = 0.0) -> Iterator[Word]:
        """Lines in and around a candidate, in pixels of the frame, up to the first rendering that is read surely."""
        thick = min(candidate.height, candidate.width)
        margin, further = max(6, thick // 2), max(12, AHEAD * thick)
        down, aside = (further, margin) if candidate.turned else (margin, further)
        top, left = max(0, candidate.top - down), max(0, candidate.left - aside)
        crop = self.frame[top : candidate.bottom + down, left : candidate.right + aside]
        scale = zoom or min(MOST_ZOOM, max(1.0, ENLARGED / thick))
        for picture in islice(renderings(crop, self.whole, self.header), tries):
            lines = read(
                np.ascontiguousarray(np.rot90(picture) if candidate.turned else picture), scale=scale
            )
            if candidate.turned:
                lines = [_turned_back(line, crop.shape) for line in lines]
            lines = [line.moved(top, left) for line in lines]
            yield from lines
            if any(_is_sure(line) for line in lines):
                return


def _turned_back(word: Word, shape: tuple[int, ...]) -> Word:
    """From a crop turned to the left by 90 degrees back to the crop of this shape."""
    cols = shape[1]
    return Word(word.text, word.confidence, word.left, cols - word.bottom, word.right, cols - word.top)


def _letters(text: str) -> int:
    return sum(char.isalnum() for char in text)


def _is_sure(word: Word) -> bool:
    return word.confidence >= SURE and _letters(word.text) >= SURE_LETTERS
