"""One untrusted file to one data set, or to one named refusal; nothing else comes out of here."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pydicom import config, dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from client.deid.plain import read_plain
from client.intake.classes import check_class
from client.intake.twice import Form, check_items, check_once, end_of_meta
from common.errors import FileRefused

MAX_FILE_BYTES: Final = 512 * 2**20
MAX_INFLATED_BYTES: Final = 256 * 2**20
_MAGIC_AT: Final = 128
_LONG: Final = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"))
"""VRs with a length of 32 bits, as they stand in a file."""


@contextmanager
def quiet() -> Iterator[None]:
    """Run pydicom without its opinions on values: what the profile does not permit goes anyway."""
    reading, writing = config.settings.reading_validation_mode, config.settings.writing_validation_mode
    config.settings.reading_validation_mode = config.IGNORE
    config.settings.writing_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.settings.reading_validation_mode = reading
        config.settings.writing_validation_mode = writing


def parse(data: bytes) -> Dataset:
    """Read a DICOM file from its bytes and check that it is an image we take in.

    Raises:
        FileRefused: `not-dicom`, `parser-error`, `parser-limit`, `deflate-bomb`, and as `check_class`.
    """
    ds = read(data)
    check_class(ds)
    return ds


def read(data: bytes) -> Dataset:
    """Read a DICOM file from its bytes, whatever kind of object it is.

    Raises:
        FileRefused: `not-dicom`, `parser-error`, `parser-limit`, `deflate-bomb`, `duplicate-element`.
    """
    if data[_MAGIC_AT : _MAGIC_AT + 4] != b"DICM":
        raise FileRefused(
            "a file", "it is not a DICOM file", "Leave it out, or export it as DICOM", code="not-dicom"
        )
    try:
        plain = read_plain(data)
        return _unusual(_inflated(data)) if plain is None else _checked(plain)
    except FileRefused:
        raise
    except (RecursionError, MemoryError):
        raise too_much() from None
    except InvalidDicomError:
        raise FileRefused(
            "a file", "it is not a DICOM file", "Leave it out, or export it as DICOM", code="not-dicom"
        ) from None
    except Exception:  # noqa: BLE001 (an untrusted file can make a parser raise anything)
        raise damaged() from None


def _unusual(bare: bytes) -> Dataset:
    """A file that pydicom must read, in which nothing stands twice."""
    ds = dcmread(io.BytesIO(bare))
    check_once(bare, end_of_meta(bare, _MAGIC_AT + 4), Form(*ds.original_encoding))
    return ds


def _checked(plain: Dataset) -> Dataset:
    """A plain file, whose elements stand in order and so once; its sequences are still to be looked into."""
    for item in plain.values():
        if item.VR == "SQ" and item.value:
            check_items(item.value)
    return plain


def damaged() -> FileRefused:
    """The refusal of a file whose elements cannot all be read."""
    return FileRefused("a file", "it is damaged", "Send the file again from its source", code="parser-error")


def too_much() -> FileRefused:
    """The refusal of a file that needs more memory, depth or time than a file may."""
    return FileRefused(
        "a file",
        "reading it takes more memory or time than one file may take",
        "Check the file at its source; it may be damaged or made to harm",
        code="parser-limit",
    )


def _after_meta(tag: int, _vr: str | None, _length: int) -> bool:
    return tag >> 16 != 2


def _end_of_meta(data: bytes) -> int:
    """Where the data set begins, or the end of the file when its meta cannot be followed."""
    at = _MAGIC_AT + 4
    while data[at : at + 2] == b"\x02\x00" and at + 12 <= len(data):
        long = data[at + 4 : at + 6] in _LONG
        size = struct.unpack_from("<I" if long else "<H", data, at + 8 if long else at + 6)[0]
        at += size + (12 if long else 8)
    return min(len(data), at)


def _inflated(data: bytes) -> bytes:
    """The same file without deflate compression, inflated no further than the limit."""
    if DeflatedExplicitVRLittleEndian.encode() not in data[_MAGIC_AT + 4 : _end_of_meta(data)]:
        return data
    stream = io.BytesIO(data)
    stream.seek(_MAGIC_AT + 4)
    meta = FileMetaDataset(read_dataset(stream, False, True, stop_when=_after_meta))
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return data
    tool = zlib.decompressobj(-zlib.MAX_WBITS)
    body = tool.decompress(data[stream.tell() :], MAX_INFLATED_BYTES)
    if tool.unconsumed_tail:
        raise FileRefused(
            "a file",
            f"it inflates to more than {MAX_INFLATED_BYTES >> 20} MiB",
            "Send it uncompressed, or check it at its source",
            code="deflate-bomb",
        )
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    head = io.BytesIO()
    write_file_meta_info(head, meta)
    return b"\0" * _MAGIC_AT + b"DICM" + head.getvalue() + body
