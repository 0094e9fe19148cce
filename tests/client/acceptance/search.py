"""Looking for canaries in bytes, in every coding in which a careless program could have kept them."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

CODINGS: Final = (
    "utf-8",
    "utf-16-le",
    "utf-16-be",
    "latin-1",
    "iso8859-2",
    "iso8859-5",
    "iso8859-6",
    "iso8859-7",
    "iso8859-8",
    "iso2022_jp",
    "euc_jp",
    "shift_jis",
    "gb18030",
    "tis-620",
)
SHORTEST: Final = 6
"""Bytes of the shortest pattern: shorter ones meet pixels by chance."""


@cache
def patterns(text: str) -> frozenset[bytes]:
    """A text in all codings, in small and large letters, backwards, as hexadecimal and as base64; lower case."""
    found: set[bytes] = set()
    for form in {text, text.upper(), text.casefold(), text[::-1]}:
        for coding in CODINGS:
            try:
                raw = form.encode(coding)
            except UnicodeEncodeError:
                continue
            found |= {raw.lower(), raw.hex().encode(), *_in_base64(raw)}
    return frozenset(one for one in found if len(one) >= SHORTEST)


def _in_base64(raw: bytes) -> Iterable[bytes]:
    """What of the base64 text depends on these bytes alone, wherever in a group of three they begin."""
    for before in range(3):
        coded = base64.b64encode(bytes(before) + raw)
        start = -(-before * 8 // 6)
        yield coded[start : (before + len(raw)) * 8 // 6].lower()


class Finder:
    """Many texts looked for at once: by the first six bytes of all their patterns, then whole."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._by_head: dict[int, list[tuple[bytes, str]]] = defaultdict(list)
        for text in texts:
            for pattern in patterns(text):
                self._by_head[int.from_bytes(pattern[:SHORTEST], "little")].append((pattern, text))
        self._heads = np.array(sorted(self._by_head), dtype=np.uint64)
        self._starts = np.zeros(1 << 16, dtype=bool)
        self._starts[(self._heads & np.uint64(0xFFFF)).astype(np.int64)] = True

    def find(self, data: bytes) -> list[str]:
        """The texts that stand in the data, each once, in order."""
        lowered = data.lower()
        found: set[str] = set()
        for at in self._candidates(np.frombuffer(lowered, dtype=np.uint8)):
            head = int.from_bytes(lowered[at : at + SHORTEST], "little")
            found |= {text for pattern, text in self._by_head[head] if lowered.startswith(pattern, at)}
        return sorted(found)

    def _candidates(self, raw: np.ndarray) -> list[int]:
        if raw.size < SHORTEST:
            return []
        last = raw.size - SHORTEST + 1
        pairs = raw[:last].astype(np.uint16) | (raw[1 : last + 1].astype(np.uint16) << np.uint16(8))
        likely = np.flatnonzero(self._starts[pairs])
        heads = sum(
            (raw[likely + n].astype(np.uint64) << np.uint64(8 * n) for n in range(SHORTEST)), np.uint64(0)
        )
        return [int(at) for at in likely[np.isin(heads, self._heads)]]


def leaks(data: bytes, texts: Iterable[str]) -> list[str]:
    """Those of the texts that stand in the data in any coding."""
    return Finder(texts).find(data)


def contents(root: Path) -> Mapping[str, bytes]:
    """Every file under a folder by its name, and the names themselves."""
    paths = sorted(root.rglob("*"))
    found = {str(path.relative_to(root)): path.read_bytes() for path in paths if path.is_file()}
    names = "\n".join(str(path.relative_to(root)) for path in paths)
    return {**found, "names of files and folders": names.encode("utf-8", "surrogateescape")}
