"""Which instance a DICOM file is: one look into its file meta, without a parser that follows what the file says."""

from __future__ import annotations

import struct
from typing import Final

_PREFIX_AT: Final = 128
_INSTANCE: Final = (0x0002, 0x0003)
_LONG: Final = frozenset((b"OB", b"OW", b"UN", b"UT", b"UC", b"UR", b"SQ", b"OF", b"OD", b"OL", b"OV"))
_MAX_UID: Final = 64


def instance_uid(head: bytes) -> str:
    """MediaStorageSOPInstanceUID of a file, of which this is the beginning; empty when it is not there.

    File meta is always explicit little endian, and this element is among its first (PS3.10 7.1).
    """
    if head[_PREFIX_AT : _PREFIX_AT + 4] != b"DICM":
        return ""
    at = _PREFIX_AT + 4
    try:
        while True:
            group, element, kind, length = struct.unpack_from("<HH2sH", head, at)
            at += 8
            if kind in _LONG:
                (length,) = struct.unpack_from("<I", head, at)
                at += 4
            if (group, element) >= _INSTANCE or group != _INSTANCE[0]:
                break
            at += length
    except struct.error:
        return ""
    value = head[at : at + length]
    if (group, element) != _INSTANCE or length > _MAX_UID or len(value) != length:
        return ""
    return value.decode("ascii", "replace").strip(" \0")
