"""The second scan: the bytes that were written, searched for everything that could name the source's patient.

It knows nothing of the profile. It takes from the raw source every identifier by its own list (`client.deid.wanted`),
and looks for each in every element of the written bytes, in file meta and pixels too. What we write is ASCII, so a
name in another script is found in whichever encoding it survives. One hit, or one byte that should not be there, and
the file stays in quarantine.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from client.deid.methods import MEANINGS
from client.deid.needles import PLAIN_BYTES, Needles
from client.deid.reader import Seen, Unreadable, walk
from client.deid.said import dates_in
from client.deid.wanted import Wanted, identifiers
from client.deid.writings import as_bytes, joined_digits, words
from common.errors import FileRefused

__all__ = ["Wanted", "check", "identifiers"]

_META: Final = frozenset((0x00, 0x01, 0x02, 0x03, 0x10, 0x12, 0x13))
_PIXELS: Final = (0x7FE0, 0x0010)
_DRAWN: Final = frozenset((0x5000, 0x6000))
"""Where the groups of curves and overlays begin, 256 each."""
_NUMBERS: Final = frozenset(("DS", "IS"))
_BINARY: Final = frozenset(("US", "SS", "UL", "SL", "FD", "FL", "OB", "OW", "AT", "SQ"))
_OPEN: Final = frozenset(("LO", "SH", "LT", "ST", "UT", "UC", "PN"))
_PRINTABLE: Final = re.compile(rb"[ -~]*\0?")
"""All that we write as text; an odd UID ends in a zero."""
_MARKS: Final = re.compile(r"[^\w\n]+|_+")
"""What is neither a letter nor a digit, nor the end of a value."""
_BINARY_NUMBERS: Final = frozenset(("US", "SS", "UL", "SL", "FD", "FL"))
_CODES: Final = frozenset(code.casefold() for code in MEANINGS)
_CONSTANTS: Final = {
    (0x0002, 0x0013): frozenset(("consilium_1",)),
    (0x0008, 0x0008): frozenset(("other",)),
    (0x0008, 0x0100): _CODES,
    (0x0008, 0x0102): frozenset(("dcm",)),
    (0x0008, 0x0104): frozenset(meaning.casefold() for meaning in MEANINGS.values()),
    (0x0012, 0x0062): frozenset(("yes",)),
    (0x0028, 0x0301): frozenset(("no",)),
    (0x0028, 0x0302): frozenset(("no",)),
    (0x0028, 0x0303): frozenset(("modified", "removed")),
}
"""Values that are the same in every file, whoever the patient is; a patient called Profile or Other is no hit."""


def check(data: bytes, wanted: Wanted, private: Sequence[str] = ()) -> Pixels:
    """Search a written file.

    Args:
        data: the file's bytes.
        wanted: what the source names.
        private: creators whose private numbers the hospital keeps.

    Returns:
        where the pixels are, for whoever looks at them.

    Raises:
        FileRefused: `deid-verify`; it says what kind of thing was found, never what.
    """
    try:
        elements = list(walk(data))
    except Unreadable as error:
        raise _refused(f"the second scan could not walk it: {error}") from None
    pixels = _structure(elements, private)
    _Texts.of(elements).search(wanted)
    needles = _needles(wanted)
    binary = b"\xff\xff".join(bytes(seen.value) for seen in elements[:-1] if seen.vr in _BINARY)
    if needles.are_in(binary) or needles.are_in(elements[-1].value):
        raise _hit()
    return pixels


@dataclass(frozen=True)
class Pixels:
    """The pixels as they lie in the written bytes."""

    value: memoryview
    frames: int
    rows: int
    cols: int
    allocated: int
    signed: bool

    def array(self) -> npt.NDArray[Any]:
        """[frames, rows, columns], read only."""
        kind = f"<{'i' if self.signed else 'u'}{self.allocated // 8}"
        count = self.frames * self.rows * self.cols
        flat = np.frombuffer(self.value, dtype=kind, count=count)
        return flat.reshape(self.frames, self.rows, self.cols)


@dataclass(frozen=True)
class _Texts:
    """All values of a file that are letters, by what may stand in them; one value a line, case folded."""

    free: str
    """Names, text, codes, dates."""
    open: str
    """Of these, what DICOM lets anybody write."""
    uids: str
    numbers: str

    @classmethod
    def of(cls, elements: Sequence[Seen]) -> _Texts:
        """Sort the elements.

        Raises:
            FileRefused: a byte that is not ASCII; nothing we keep has one, and a name in another script would.
        """
        free: list[str] = []
        open_: list[str] = []
        uids: list[str] = []
        numbers: list[str] = []
        for seen in elements:
            if seen.vr in _BINARY:
                continue
            raw = bytes(seen.value)
            if not _PRINTABLE.fullmatch(raw):
                raise _refused("a text is not plain ASCII, and a name in another script may be in it")
            text = raw.decode("ascii").casefold()
            if seen.vr in _NUMBERS:
                numbers.append(text)
            elif seen.vr == "UI":
                uids.append(text)
            else:
                text = _without_constants(seen, text)
                free.append(text)
                if seen.vr in _OPEN and seen.group != 0x0002:
                    open_.append(text)
        return cls("\n".join(free), "\n".join(open_), "\n".join(uids), "\n".join(numbers))

    def search(self, wanted: Wanted) -> None:
        """Look for everything.

        Raises:
            FileRefused: `deid-verify`.
        """
        found = words(self.free)
        everything = f"{self.free}\n{self.uids}\n{self.numbers}"
        runs = set(re.findall(r"\d+", everything)) | set(re.findall(r"\d+", joined_digits(self.free)))
        hit = (
            any(part in everything or part[::-1] in everything for part in wanted.parts)
            or not wanted.numbers.isdisjoint(runs)
            or not wanted.numbers.isdisjoint(run[::-1] for run in runs)
            or not wanted.words.isdisjoint(found)
            or (bool(wanted.pairs) and not wanted.pairs.isdisjoint(pairwise(found)))
            or not wanted.said.isdisjoint(words(self.open))
            or not wanted.days.isdisjoint(dates_in(self.free))
            or not wanted.days.isdisjoint(
                re.split(r"[\s\\\0]+", self.numbers)
            )  # whole: a date as an exposure
            or (bool(wanted.tight) and _any_in(wanted.tight, self._tight()))
        )
        if hit:
            raise _hit()

    def _tight(self) -> str:
        """Every value without blanks and marks; they stay apart, so that none runs into the next."""
        return _MARKS.sub("", self.free)


def _any_in(texts: Collection[str], text: str) -> bool:
    return any(one in text for one in texts)


def _without_constants(seen: Seen, text: str) -> str:
    constant = _CONSTANTS.get((seen.group, seen.element))
    if constant is None:
        return text
    return "\\".join(value for value in text.split("\\") if value.strip(" \0") not in constant)


def _needles(wanted: Wanted) -> Needles:
    """A token of six bytes meets a megabyte by chance once in 10^8."""
    plain, wide, foreign = as_bytes(wanted.parts | wanted.numbers | wanted.foreign, PLAIN_BYTES)
    return Needles(tuple(plain), tuple(wide), tuple(foreign | wanted.raw))


def _structure(elements: list[Seen], private: Sequence[str]) -> Pixels:
    """No overlay, no curve, nothing private but what the hospital keeps, and pixels at the very end."""
    image: dict[int, memoryview] = {}
    for seen in elements:
        group = seen.group
        if group % 2 and not _is_kept_private(seen, elements, private):
            raise _refused("a private element was written")
        if group & 0xFF00 in _DRAWN:
            raise _refused("a curve or overlay element was written")
        if group == 0x0002 and seen.element not in _META:
            raise _refused("file meta holds an element it should not")
        if group == 0x0028 and not seen.depth:
            image[seen.element] = seen.value
    last = elements[-1]
    rows, cols, allocated, stored, signed = (
        _us(image.get(e)) for e in (0x0010, 0x0011, 0x0100, 0x0101, 0x0103)
    )
    frames = int(bytes(image.get(0x0008, b"1")).strip(b" \0") or b"1")
    size = rows * cols * allocated // 8 * frames
    if (last.group, last.element) != _PIXELS or len(last.value) != size + size % 2:
        raise _refused("the pixels are not the last element, or not of the announced size")
    if size % 2 and last.value[-1]:
        raise _refused("the byte that fills up the pixels is not empty")
    pixels = Pixels(last.value, frames, rows, cols, allocated, bool(signed))
    _unused_bits(pixels, stored)
    return pixels


def _is_kept_private(seen: Seen, elements: Sequence[Seen], private: Sequence[str]) -> bool:
    """The name of a block on the list, or a number in such a block."""
    if not private or seen.depth:
        return False
    if seen.element < 0x100:
        return seen.vr == "LO" and bytes(seen.value).decode("latin-1").strip(" \0") in private
    block = seen.element >> 8
    owner = next((s for s in elements if s.group == seen.group and s.element == block and not s.depth), None)
    return owner is not None and (seen.vr in _NUMBERS or seen.vr in _BINARY_NUMBERS)


def _unused_bits(pixels: Pixels, stored: int) -> None:
    """Bits above the stored ones must say nothing: zero, or the sign once more."""
    values = pixels.array()
    low, high = (-(1 << (stored - 1)), 1 << (stored - 1)) if pixels.signed else (0, 1 << stored)
    if stored < pixels.allocated and values.size and not (low <= values.min() and values.max() < high):
        raise _refused("bits that belong to no pixel were written")


def _us(value: memoryview | None) -> int:
    return int.from_bytes(bytes(value or b""), "little")


def _hit() -> FileRefused:
    return _refused("an identifier of the patient, study or hospital is still in it")


def _refused(rule: str) -> FileRefused:
    return FileRefused(
        "a de-identified image",
        rule,
        "Report it: the original stays in quarantine and nothing was stored",
        code="deid-verify",
    )
