"""Every identifier that a source names: what a de-identified image may not hold, wherever it stood.

Nested, private and file-meta elements count as the others do. The list of what identifies is this module's own and
knows nothing of the profile, so that a mistake in the profile is not made twice.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Final, NamedTuple

from pydicom.dataset import Dataset

from client.deid.said import dates_in, said_in
from client.deid.speaking import DEVICE_TAGS, IDENTIFIER_TAGS, PLACE_TAGS, Spoken, speaking
from client.deid.writings import folded, joined_digits, spellings, squeezed, words

SHORTEST: Final = 3
"""Characters of the shortest name or number that counts by itself, as a whole word; a shorter name counts together
with the name beside it (Wu Li). Initials and two letters occur everywhere by chance."""
LONG: Final = 6
"""From this length on a token is looked for inside words, numbers and pixels too, not only as a whole word."""
CERTAIN: Final = 10
"""Digits from which on a number is looked for inside longer runs of digits; a shorter one meets our own
random UIDs by chance (six digits: one image in 500, measured)."""
_DIGIT: Final = re.compile(r"\d")
_DIGITS: Final = re.compile(r"\d+")
_WELL_KNOWN: Final = "1.2.840.10008."
_KINDS: Final = 4096
"""Elements remembered with what they say; a hostile file may hold any number of them."""
_LONGEST: Final = 256
"""Letters of an element that is worth remembering."""


@dataclass(frozen=True)
class Wanted:
    """What to look for, case folded and in each of its spellings."""

    words: frozenset[str] = frozenset()
    """As whole words."""
    parts: frozenset[str] = frozenset()
    """Anywhere, in text, numbers, UIDs and binary."""
    numbers: frozenset[str] = frozenset()
    """Digits, as whole runs of them."""
    days: frozenset[str] = frozenset()
    """YYYYMMDD, met in any common writing."""
    said: frozenset[str] = frozenset()
    """From free text and private elements: as whole words where text is open, not where DICOM defines the terms."""
    pairs: frozenset[tuple[str, str]] = frozenset()
    """Two words beside each other, one of them too short to count by itself."""
    tight: frozenset[str] = frozenset()
    """Numbers with letters, looked for in text without its blanks and marks."""
    foreign: frozenset[str] = frozenset()
    """Words and names that are not ASCII, two letters long and more, looked for in every encoding."""
    raw: frozenset[bytes] = frozenset()
    """Names that are not ASCII, byte for byte as the source holds them, whatever it says their encoding is."""

    def touches(self, text: str) -> bool:
        """Whether a value that could be kept holds one of these; it is then left out."""
        seen = _seen_before(text) if len(text) <= _LONGEST else _seen(text)
        return (
            not self.words.isdisjoint(seen.words)
            or not self.said.isdisjoint(seen.words)
            or self.holds(seen.low)
            or not self.pairs.isdisjoint(seen.pairs)
            or not self.numbers.isdisjoint(seen.numbers)
            or (bool(self.tight) and any(one in seen.tight for one in self.tight))
            or not self.days.isdisjoint(seen.days)
        )

    def holds(self, text: str) -> bool:
        """Whether a text, as it stands, has one of the parts in it."""
        return len(text) >= self._shortest and any(part in text for part in self.parts)

    @cached_property
    def _shortest(self) -> int:
        """Letters of the shortest part: nothing shorter holds any."""
        return min(map(len, self.parts), default=0)


class _Seen(NamedTuple):
    """A value that could be kept, in each way in which it is looked at; most values stand in file after file."""

    low: str
    words: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    numbers: tuple[str, ...]
    tight: str
    days: frozenset[str]


def _seen(text: str) -> _Seen:
    low = text.casefold()
    found = tuple(words(low))
    digits = _DIGIT.search(low) is not None
    numbers = tuple(_DIGITS.findall(joined_digits(low))) if digits else ()
    days = frozenset(dates_in(low)) if digits else frozenset[str]()
    return _Seen(low, found, tuple(itertools.pairwise(found)), numbers, squeezed(low), days)


_seen_before = lru_cache(maxsize=_KINDS)(_seen)
_NOTHING: Final = Wanted()
_FIELDS: Final = tuple(attrgetter(one.name) for one in fields(Wanted))


@dataclass
class _Collector:
    """The identifiers of one element."""

    vendor: frozenset[str]
    tokens: set[str] = field(default_factory=set)
    parts: set[str] = field(default_factory=set)
    days: set[str] = field(default_factory=set)
    said: set[str] = field(default_factory=set)
    pairs: set[tuple[str, str]] = field(default_factory=set)
    tight: set[str] = field(default_factory=set)
    raw: set[bytes] = field(default_factory=set)

    def take(self, element: Spoken) -> None:
        """Note what this element says of a person, a place or an object."""
        tag, vr = element.tag, element.vr
        texts = [folded(text) for text in element.texts]
        if vr == "PN":
            self._person(texts, element.raw)
        elif tag in IDENTIFIER_TAGS:
            self._number(texts)
        elif tag in PLACE_TAGS or tag in DEVICE_TAGS or vr == "AE":
            self._place(texts, whole=tag in DEVICE_TAGS)
        elif vr == "UI":
            self.parts.update(text for text in texts if text and not text.startswith(_WELL_KNOWN))
        elif vr in ("DA", "DT"):
            self.days.update(text[:8] for text in texts if re.fullmatch(r"\d{8}", text[:8]))
        heard = said_in(element)
        self.said |= heard.words
        self.days |= heard.days

    def _person(self, texts: Iterable[str], raw: bytes) -> None:
        for text in texts:
            self.parts.update(_long(text))
            for group in text.split("="):
                names = words(group)
                self.tokens.update(names)
                self.parts.update(_long("".join(words(part)) for part in group.split("^")))
                if any(len(name) < SHORTEST for name in names):
                    beside = list(itertools.pairwise(names))
                    self.pairs.update(p for pair in beside for p in (pair, pair[::-1]))
        self.raw.update(part.lower() for part in re.split(rb"[\^=\\]", raw) if len(part) >= LONG)

    def _number(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.tokens.update(words(text))
            self.parts.update(_long(text))
            plain = squeezed(text)
            if len(plain) >= LONG and any(letter.isdigit() for letter in plain):
                (self.parts if plain.isdigit() else self.tight).add(plain)

    def _place(self, texts: Iterable[str], *, whole: bool) -> None:
        """A place counts as a whole, if it is not merely what the device is called."""
        for text in texts:
            if any(text in name for name in self.vendor):
                continue
            self.parts.update(_long(text))
            if whole or len(text) < LONG:
                self.tokens.update(words(text))

    def wanted(self) -> Wanted:
        """All of it, in every spelling."""
        tokens = {form for form in _spelt(self.tokens) if len(form) >= SHORTEST}
        parts = _spelt(self.parts)
        parts |= {token for token in tokens if len(token) >= LONG}
        digits = {part for part in parts if part.isdigit() and len(part) < CERTAIN}
        return Wanted(
            words=frozenset(tokens),
            parts=frozenset(parts - digits),
            numbers=frozenset(digits),
            days=frozenset(self.days),
            said=frozenset(_spelt(self.said)),
            pairs=frozenset(self.pairs),
            tight=frozenset(self.tight),
            foreign=frozenset(one for one in self.tokens | self.parts if len(one) > 1 and not one.isascii()),
            raw=frozenset(self.raw),
        )


def identifiers(source: Dataset) -> Wanted:
    """Every identifier of a source: nested, in private items and in its file meta as well."""
    vendor = frozenset(folded(source.get(k)) for k in ("Manufacturer", "ManufacturerModelName"))
    meta = getattr(source, "file_meta", None) or Dataset()
    said = (_said_by(element, vendor) for element in itertools.chain(speaking(meta), speaking(source)))
    return _joined({id(one): one for one in said if one is not _NOTHING}.values())


def _said_by(element: Spoken, vendor: frozenset[str]) -> Wanted:
    """What one element says; nothing of it depends on the others, so that all slices of a patient share it."""
    if sum(map(len, element.texts)) > _LONGEST:
        return _taken(element, vendor)
    return _remembered(element, vendor)


def _taken(element: Spoken, vendor: frozenset[str]) -> Wanted:
    found = _Collector(vendor)
    found.take(element)
    wanted = found.wanted()
    return _NOTHING if wanted == _NOTHING else wanted


_remembered = lru_cache(maxsize=_KINDS)(_taken)


def _joined(several: Collection[Wanted]) -> Wanted:
    """All of what several say."""
    return Wanted(*(frozenset().union(*filter(None, map(of, several))) for of in _FIELDS))


def _spelt(texts: set[str]) -> set[str]:
    return {form for text in texts for form in ((text,) if text.isascii() else spellings(text))}


def _long(texts: str | Iterable[str]) -> Iterator[str]:
    return (text for text in ((texts,) if isinstance(texts, str) else texts) if len(text) >= LONG)
