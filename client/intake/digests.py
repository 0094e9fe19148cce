"""What names a file and its pixels by their content: one pass over the pixels serves both.

Images of this release are compared by their stored values and what turns these into units, `s:` and 64 hexadecimal
digits. Earlier releases hashed the units themselves, twice the bytes; their digests have no prefix, and the two
kinds say nothing about one another.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset

from client.index_rows import STORED

_LAYOUT: Final = (0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280103)
"""Frames, rows, columns, bits, sign."""
_UNITS: Final = (0x00281052, 0x00281053)
"""Intercept and slope."""


def tail_digest(tail: bytes | memoryview) -> bytes:
    """SHA-256 of the pixels as they lie in a file."""
    return hashlib.sha256(tail).digest()


def stored_digest(header: Dataset, tail: bytes) -> str:
    """Equal for images with equal stored values in equal units.

    Args:
        header: of the de-identified image.
        tail: `tail_digest` of its pixels.
    """
    layout = [_number(header, tag) for tag in _LAYOUT]
    units = [_number(header, tag) for tag in _UNITS]
    said = hashlib.sha256(repr((layout, units)).encode())
    for item in header.get("ModalityLUTSequence") or ():
        said.update(repr([list(item.LUTDescriptor), item["LUTData"].value]).encode())
    said.update(tail)
    return STORED + said.hexdigest()


def _number(header: Dataset, tag: int) -> float:
    """A number of ours, read from its bytes where it still lies in them; 0 where there is none."""
    item = header.get_item(tag) if tag in header else None
    if item is None or item.value in (None, b"", ""):
        return 0.0
    if isinstance(item.value, bytes):
        return float(int.from_bytes(item.value, "little") if item.VR == "US" else item.value.decode("ascii"))
    return float(item.value)


def file_digest(data: bytes, length: int, tail: bytes) -> str:
    """Names a whole file: SHA-256 of what comes before its pixels and of their own SHA-256.

    Args:
        data: the file.
        length: bytes of its pixels, which are its end.
        tail: `tail_digest` of them.

    Returns:
        the length, a colon and 64 hexadecimal digits.
    """
    said = hashlib.sha256(memoryview(data)[: len(data) - length])
    said.update(tail)
    return f"{length}:{said.hexdigest()}"


def is_whole(path: Path, digest: str) -> bool:
    """Whether a file is there and is the one of this digest; after a power cut it may be so by name only."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    length, _, rest = digest.partition(":")
    if not rest:
        return hashlib.sha256(data).hexdigest() == digest
    if not length.isdecimal() or int(length) > len(data):
        return False
    tail = memoryview(data)[len(data) - int(length) :]
    return file_digest(data, int(length), tail_digest(tail)) == digest
