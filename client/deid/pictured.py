"""Whether words that a reader found in pixels name somebody, with the mistakes that readers make.

A reader takes 0 for O, 1 for l, 5 for S and 8 for B, drops a letter or joins two words. So letters that look alike
count as one, blanks do not count, and a name of five letters and more is met when one letter in five is
wrong. A shorter one must stand there exactly, as a word of its own: with mistakes allowed it would be met everywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Final

from client.deid.said import dates_in
from client.deid.wanted import Wanted
from client.deid.writings import spellings, squeezed, words
from common.errors import FileRefused

FUZZY: Final = 5
"""Characters from which on mistakes are allowed."""
MISTAKES: Final = 0.2
"""Letters in a name that may be wrong, missing or too many, as a share of it."""
_ALIKE: Final = str.maketrans("01l|!582zq", "oiiiisbssg")


def check_pictured(lines: Iterable[str], wanted: Wanted) -> None:
    """Refuse an image in whose pixels an identifier can be read.

    Raises:
        FileRefused: `deid-verify`.
    """
    if names_somebody(lines, wanted):
        raise FileRefused(
            "a de-identified image",
            "an identifier of the patient, study or hospital can be read in its pixels",
            "Blank it at the source, or look at the image with consilium-site review",
            code="deid-verify",
        )


def names_somebody(lines: Iterable[str], wanted: Wanted) -> bool:
    """Whether one of the lines holds an identifier, exactly or nearly.

    Args:
        lines: what was read, each a word or several.
        wanted: what the source names.
    """
    long = {_alike(one) for one in wanted.words | wanted.parts | wanted.numbers | wanted.said | wanted.tight}
    long = {one for one in long if len(one) >= FUZZY}
    for line in lines:
        for text in set(spellings(line.casefold())):
            found = words(text)
            if not wanted.words.isdisjoint(found) or not wanted.days.isdisjoint(dates_in(text)):
                return True
            if not wanted.pairs.isdisjoint(itertools.pairwise(found)):
                return True
            plain = _alike(text)
            if any(nearest(one, plain) <= int(len(one) * MISTAKES) for one in long):
                return True
    return False


def nearest(word: str, text: str) -> int:
    """Letters to change, drop or add so that the word becomes some part of the text (Sellers 1980)."""
    before = [0] * (len(text) + 1)
    for row, letter in enumerate(word, 1):
        now = [row]
        for column, other in enumerate(text, 1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (letter != other)))
        before = now
    return min(before)


def _alike(text: str) -> str:
    """One letter for all that look like it, without blanks and marks."""
    return squeezed(text).translate(_ALIKE)
