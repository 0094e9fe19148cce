"""The ways in which one identifier may be written, so that it is found in whichever of them it survives.

Case and diacritics are folded away, in the manner of English (Müller, muller) and of German (mueller). Digits
are joined over the blanks, dots and dashes that people put between them. Bytes are looked for in every
encoding that a DICOM character set or a computer's own habit may give them, and backwards.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

_GERMAN: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "æ": "ae"})
_PLAIN: Final = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i"}
)
_BETWEEN: Final = re.compile(r"(?<=\d)[ \t\f\v\r\-./()_]+(?=\d)")
"""On one line: numbers of two values are not one."""
_NO_WORD: Final = re.compile(r"[\W_]+")
_ESCAPES: Final = re.compile(rb"\x1b[$()*+,-./]+[@-Z]|[\x0e\x0f]")
"""What switches a character set of ISO 2022 on, and shifts into it and out."""
ENCODINGS: Final = (
    "utf-8",
    "utf-16-le",
    "utf-16-be",
    "latin-1",
    "cp1250",
    "cp1251",
    "cp1252",
    "cp1253",
    "cp1256",
    "iso8859-2",
    "iso8859-3",
    "iso8859-4",
    "iso8859-5",
    "iso8859-6",
    "iso8859-7",
    "iso8859-8",
    "iso8859-9",
    "iso8859-13",
    "iso8859-15",
    "tis-620",
    "koi8-r",
    "mac-roman",
    "cp437",
    "cp850",
    "shift_jis",
    "euc_jp",
    "iso2022_jp_2",
    "euc_kr",
    "iso2022_kr",
    "gb18030",
    "big5",
)
"""Of DICOM's character sets (PS3.3 C.12.1.1.2) and of consoles, paper forms and web pages."""


def folded(text: object) -> str:
    """Case folded, without the padding of DICOM."""
    return str(text or "").strip(" \0").casefold()


def spellings(token: str) -> Iterator[str]:
    """A case-folded token, and without its diacritics in each usual manner."""
    yield token
    if not token.isascii():
        for table in (_PLAIN, _GERMAN):
            bare = unicodedata.normalize("NFKD", unicodedata.normalize("NFC", token).translate(table))
            yield "".join(letter for letter in bare if not unicodedata.combining(letter))


def words(text: str) -> list[str]:
    """The runs of letters and digits in a text, as they stand."""
    return re.findall(r"[^\W_]+", text)


def joined_digits(text: str) -> str:
    """The same text with nothing between digits that only blanks, dots, dashes or brackets part."""
    return _BETWEEN.sub("", text)


def squeezed(text: str) -> str:
    """Letters and digits only."""
    return _NO_WORD.sub("", text)


def as_bytes(tokens: Iterable[str], shortest: int) -> tuple[set[bytes], set[bytes], set[bytes]]:
    """Tokens as they may lie in binary, in lower case where a byte is an ASCII letter.

    Args:
        tokens: case folded.
        shortest: bytes of the shortest form worth a search; chance finds shorter ones.

    Returns:
        plain (ASCII, forth and back), wide (the ASCII ones with two bytes a letter), and foreign: all that is
        not ASCII, in each of `ENCODINGS` that can say it, in the cases in which names are written.
    """
    plain: set[bytes] = set()
    wide: set[bytes] = set()
    foreign: set[bytes] = set()
    for token in tokens:
        if not token.isascii():
            foreign.update(raw for raw in _encoded(token) if len(raw) >= shortest)
        elif len(token) >= shortest:
            plain |= {token.encode(), token[::-1].encode()}
            wide |= {token.encode("utf-16-le"), token.encode("utf-16-be")}
    return plain, wide, foreign


def _encoded(token: str) -> Iterator[bytes]:
    upper = token.upper()
    lower = upper.lower()  # a Greek name ends in another sigma than it holds
    for text in {token, upper, lower, lower.title(), unicodedata.normalize("NFD", token)}:
        for encoding in ENCODINGS:
            try:
                raw = text.encode(encoding)
            except UnicodeEncodeError:
                continue
            yield raw.lower()
            if b"\x1b" in raw:  # what is left when the escapes are lost
                yield _ESCAPES.sub(b"", raw).lower()
