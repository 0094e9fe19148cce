"""What free text and private elements say about people: names, numbers and dates that stand nowhere else.

Free text cannot be searched for as it is: its ordinary words ("mobile", "chest") stand in every honest
file too. Taken from it are words in the place or form of a name, words with the digits of a number, and
dates however they are written. A private element that its vendor has documented as something other
than a person's is a machine's, and is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from functools import lru_cache
from typing import Final, NamedTuple

from pydicom.datadict import private_dictionary_description
from pydicom.dataset import Dataset

from client.deid.speaking import Spoken, is_remark, speaking

_PERSONAL: Final = re.compile(
    r"patient|person|physician|operator|technolog|doctor|comment|history|birth|address|notes?\b",
    re.IGNORECASE,
)
_WORD: Final = r"[^\W\d_][^\W\d_'’-]+"
_FORMS: Final = (
    re.compile(rf"({_WORD})\^+({_WORD})?"),
    re.compile(
        r"\b(?:for|of|patient|pat|name|named|called|mr|mrs|ms|miss|frau|herr|dr|prof|mme|signora?|sr|sra)\b"
        rf"[.:;=]?\s+((?-i:[^\W\d_a-z]){_WORD})(?:[\s,]+((?-i:[^\W\d_a-z]){_WORD}))?(?:[\s,]+((?-i:[^\W\d_a-z]){_WORD}))?",
        re.IGNORECASE,
    ),
    re.compile(r"\b([^\W\d_a-z][^\W\d_]+),\s?([^\W\d_a-z][^\W\d_]+)"),
)
"""Family^Given; a word that announces a name, and up to three capitalised ones; Family, Given."""
_ALONE: Final = re.compile(rf"{_WORD}(?:[\s,]+{_WORD}){{0,2}}")
"""All of a private value: one to three words of letters."""
_NUMBER: Final = re.compile(r"(?=\w{5,}\b)(?=(?:\w*\d){4})\w+")
_SHORTEST: Final = 4
_ORDINARY: Final = frozenset(
    re.findall(
        r"\w+",
        """standard soft bone boneplus lung detail edge body brain none other unknown digital general electric medical
        systems system imaging healthcare company corporation gmbh siemens philips toshiba canon fuji fujifilm agfa
        kodak carestream konica minolta hologic hitachi samsung shimadzu united picker elscint marconi varian
        sonosite hewlett packard acuson bruker esaote neusoft mindray lorad sectra""",
    )
)
"""Makers and filters: words of machines that stand in private elements and rightly stay in a file."""
_MONTHS: Final = [
    "jan",
    "feb",
    "m[aä]r",
    "apr",
    "ma[yi]",
    "jun",
    "jul",
    "aug",
    "sep",
    "o[ck]t",
    "nov",
    "de[cz]",
]
_MONTH: Final = "|".join(_MONTHS)
_SHORT_MONTHS: Final = (
    *("jan", "feb", "mar", "apr", "may", "mai", "jun", "jul"),
    *("aug", "sep", "okt", "oct", "nov", "dec", "dez"),
)
"""What the names of all months begin with where a text is ASCII."""
_LINE_WITH_DIGIT: Final = re.compile(r"^[^\n\d]*\d[^\n]*$", re.MULTILINE)
_YEAR: Final = r"((?:18|19|20)?\d\d)(?!\d)"
_YEAR_FIRST: Final = re.compile(
    r"(?<!\d)((?:18|19|20)\d\d)(?:(\d\d)(\d\d)|([-./ ])(\d{1,2})\4(\d{1,2}))(?!\d)"
)
_YEAR_LAST: Final = re.compile(rf"(?<!\d)(\d{{1,2}})([-./ ])(\d{{1,2}})\2{_YEAR}")
_NAMED: Final = re.compile(
    rf"(?<!\d)(\d{{1,2}})(?:st|nd|rd|th)?[-. ]*({_MONTH})[a-zäé]*[-., ]*{_YEAR}"
    rf"|({_MONTH})[a-zäé]*[-. ]*(\d{{1,2}})(?:st|nd|rd|th)?[-., ]+{_YEAR}",
    re.IGNORECASE,
)


class Said(NamedTuple):
    """Names and numbers, case folded, as whole words; dates as YYYYMMDD."""

    words: frozenset[str]
    days: frozenset[str]


_NOTHING: Final = Said(frozenset(), frozenset())


def said(source: Dataset) -> Said:
    """Collect from every remark and every private element of a source, nested ones too."""
    heard = [said_in(element) for element in speaking(source)]
    return Said(
        frozenset(word for one in heard for word in one.words),
        frozenset(day for one in heard for day in one.days),
    )


def said_in(element: Spoken) -> Said:
    """What one element says, nothing when it is neither a remark nor a private element that speaks of people."""
    private = bool(element.tag >> 16 & 1)
    if not (_is_peoples(element.tag, element.creator) if private else is_remark(element.tag, element.vr)):
        return _NOTHING
    words: set[str] = set()
    days: set[str] = set()
    for text in element.texts:
        if text := text.rstrip(" \0"):
            days |= dates_in(text)
            words.update(_people(text, alone=private))
    return Said(frozenset(w for w in words if len(w) >= _SHORTEST) - _ORDINARY, frozenset(days))


def dates_in(text: str) -> set[str]:
    """Every date in a text as YYYYMMDD; where day and month can be told apart neither way, both readings."""
    text = "\n".join(_LINE_WITH_DIGIT.findall(text))  # no date goes over the end of a line
    if not text:
        return set()
    found = {(m[1], m[2] or m[5], m[3] or m[6]) for m in _YEAR_FIRST.finditer(text)}
    for m in _YEAR_LAST.finditer(text):
        found |= {(year, *pair) for year in _years(m[4]) for pair in ((m[3], m[1]), (m[1], m[3]))}
    for m in _NAMED.finditer(text) if _may_name_a_month(text) else ():
        day, name, year = (m[1], m[2], m[3]) if m[1] else (m[5], m[4], m[6])
        month = next(n for n, known in enumerate(_MONTHS, 1) if re.match(known, name, re.IGNORECASE))
        found |= {(full, str(month), day) for full in _years(year)}
    return {day for parts in found if (day := _compact(*map(int, parts)))}


def _may_name_a_month(text: str) -> bool:
    """Sooner said than found: nearly no text that holds digits names one."""
    low = text.lower()
    return not text.isascii() or any(month in low for month in _SHORT_MONTHS)


@lru_cache(maxsize=8192)
def _is_peoples(tag: int, creator: str) -> bool:
    """Whether a private element may speak of a person: undocumented, or documented as doing so."""
    if tag & 0xFFFF < 0x0100:
        return False  # the name of a block, or nothing the standard knows
    try:
        meaning = private_dictionary_description(tag, creator)
    except KeyError:
        return True
    return bool(_PERSONAL.search(meaning))


def _people(text: str, *, alone: bool) -> Iterator[str]:
    found = [name for form in _FORMS for match in form.finditer(text) for name in match.groups() if name]
    if alone and _ALONE.fullmatch(text.strip()):
        found.append(text)
    for name in found:
        yield from re.findall(r"[^\W_]+", name.casefold())
    yield from (number.casefold() for number in _NUMBER.findall(text.replace("_", " ")))


def _years(text: str) -> tuple[str, ...]:
    return (text,) if len(text) == 4 else (f"19{text}", f"20{text}")


def _compact(year: int, month: int, day: int) -> str:
    try:
        date(year, month, day)
    except ValueError:
        return ""
    return f"{year:04d}{month:02d}{day:02d}"
