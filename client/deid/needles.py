"""Words in binary: whether any of many byte strings lies in pixels, in a fraction of a millisecond for a slice.

Looking for a hundred strings one after another reads the pixels a hundred times. Here they are read as words of
16 bits a few times: a string of letters leaves runs of words whose bytes are letters, at either alignment, and images
hardly do. Only where there are such runs, and only where a run begins like one of the strings, is it compared.
Nothing is skipped on a guess: every string that is there is found (a test compares with plain search).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint16]
_FIRST: Final = 0x20
_LAST: Final = 0x7E
"""Bytes that a case-folded ASCII string is made of."""
PLAIN_BYTES: Final = 6
"""Bytes of the shortest plain string; it holds two whole words at either alignment."""
WIDE_BYTES: Final = 12
"""Bytes of the shortest string with two bytes a letter; it holds five whole words at either alignment."""
_SMALL: Final = 4096
"""Bytes below which strings are simply searched for."""
_BLOCK: Final = 2**19
"""Bytes looked at together, so that large images need no more memory and stay in the processor's cache."""
_FEW: Final = 500
"""Places compared one by one; with more of them the strings are searched for one after another."""


@dataclass(frozen=True)
class Needles:
    """Strings to look for, letters of ASCII in lower case."""

    plain: Collection[bytes] = ()
    """ASCII, printable, at least `PLAIN_BYTES` long."""
    wide: Collection[bytes] = ()
    """The same with two bytes a letter, at least `WIDE_BYTES` long."""
    foreign: Collection[bytes] = ()
    """Any other bytes; searched for one after another."""

    def are_in(self, value: memoryview | bytes) -> bool:
        """Whether one of the strings lies in the value, whatever the case of its letters."""
        if len(value) < _SMALL:
            low = bytes(value).lower()
            return any(one in low for group in (self.plain, self.wide, self.foreign) for one in group)
        over = max((len(one) for group in (self.plain, self.wide, self.foreign) for one in group), default=0)
        return any(self._in_block(value[at : at + _BLOCK + over]) for at in range(0, len(value), _BLOCK))

    def _in_block(self, value: memoryview | bytes) -> bool:
        words = np.frombuffer(value, "<u2", count=len(value) // 2)
        high = _in_range(words, _FIRST << 8, (_LAST << 8) | 0xFF)
        pairs = high[:-1] & high[1:]
        return (
            (bool(self.wide) and self._wide_in(value, words))
            or (bool(pairs.any()) and self._high_in(value, words, pairs))
            or (bool(self.foreign) and _search(bytes(value).lower(), self.foreign))
        )

    def _high_in(self, value: memoryview | bytes, words: Words, pairs: npt.NDArray[np.bool_]) -> bool:
        """Where letters stand in the higher bytes of two words in a row."""
        if self.plain and _compare(value, _begin(words, np.flatnonzero(pairs), self.plain), self.plain):
            return True
        return bool(self.wide) and self._wide_in(value, words.byteswap())

    def _wide_in(self, value: memoryview | bytes, view: Words) -> bool:
        """Where letters stand one in each word, in the lower byte of `view`: the words, or the words turned."""
        letters = _in_range(view, _FIRST, _LAST)
        two = letters[:-1] & letters[1:]
        places = np.flatnonzero((two[:-2] & two[2:])[:-1] & letters[4:])
        if not len(places):
            return False
        texts = {one[::2] if not one[1] else one[1::2] for one in self.wide}
        alphabet = np.zeros(2**16, np.bool_)
        alphabet[list(b"".join(texts) + b"".join(texts).upper())] = True
        for step in range(5):
            places = places[alphabet[view[places + step]]]
        heads = {text[at : at + 5] for text in texts for at in (0, 1)}
        found = (p for p in places.tolist() if view[p : p + 5].astype(np.uint8).tobytes().lower() in heads)
        return any(_stands_at(value, place, self.wide) for place in found)


def _in_range(words: Words, low: int, high: int) -> npt.NDArray[np.bool_]:
    """One comparison for two: below `low` the difference wraps round to the top."""
    return (words - np.uint16(low)) <= np.uint16(high - low)


def _begin(words: Words, places: npt.NDArray[np.intp], needles: Collection[bytes]) -> npt.NDArray[np.intp]:
    """Of the places given, those from which two words run like the beginning of some string."""
    heads = np.frombuffer(b"".join(one[:5] for one in needles), np.uint8).reshape(len(needles), 5)
    table = np.empty(2**16, np.bool_)
    for step in range(2):
        table[:] = False
        for shift in (0, 1):
            at = 2 * step + shift
            for first in _cases(heads[:, at]):
                for second in _cases(heads[:, at + 1]):
                    table[first.astype(np.uint16) | second.astype(np.uint16) << 8] = True
        places = places[table[words[places + step]]]
        if not len(places):
            break
    return places


def _cases(letters: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    yield letters
    lower = (letters >= ord("a")) & (letters <= ord("z"))
    yield np.where(lower, letters - 32, letters)


def _compare(value: memoryview | bytes, places: npt.NDArray[np.intp], needles: Collection[bytes]) -> bool:
    if len(places) > _FEW:
        return _search(bytes(value).lower(), needles)
    return any(_stands_at(value, place, needles) for place in places.tolist())


def _stands_at(value: memoryview | bytes, place: int, needles: Collection[bytes]) -> bool:
    """Whether a string begins at the word of this place, or half a word before it."""
    around = bytes(value[max(0, 2 * place - 1) : 2 * place + max(map(len, needles))]).lower()
    return any(one in around for one in needles)


def _search(low: bytes, needles: Collection[bytes]) -> bool:
    return any(one in low for one in needles)
