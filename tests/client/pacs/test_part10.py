"""The study of an unknown data set is found, or not, at a bounded cost; a preface makes a file of it."""

from __future__ import annotations

import io
import struct
import zlib

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from client.pacs.part10 import DEFLATED, EXPLICIT_BIG, IMPLICIT_LITTLE, preface, study_uid
from tests.client.intake_files import image

EXPLICIT = "1.2.840.10008.1.2.1"
JPEG = "1.2.840.10008.1.2.4.50"


def encoded(ds: Dataset, syntax: str) -> bytes:
    """The data set as a sender encodes it."""
    out = DicomBytesIO()
    out.is_implicit_VR, out.is_little_endian = syntax == IMPLICIT_LITTLE, syntax != EXPLICIT_BIG
    write_dataset(out, ds)
    return out.getvalue()


def nested() -> Dataset:
    """An image whose study comes after sequences, private elements and a study UID that is not its own."""
    ds = image(5)
    deep = Dataset()
    deep.StudyInstanceUID = "1.2.3.4.5.6"
    other = Dataset()
    other.ReferencedSOPInstanceUID, other.ReferencedStudySequence = "1.2.3", Sequence([deep])
    ds.ReferencedStudySequence = Sequence([other, deep])
    block = ds.private_block(0x0009, "SOMEBODY", create=True)
    block.add_new(1, "OB", b"\1" * 70_001 + b"\0")
    return ds


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT_LITTLE, EXPLICIT_BIG, JPEG])
@pytest.mark.parametrize("undefined", [False, True])
def test_the_study_is_found_behind_sequences_and_private_elements(syntax: str, undefined: bool) -> None:
    """At the top level only, in every native encoding, whether sequences say their length or not."""
    ds = nested()
    ds["ReferencedStudySequence"].is_undefined_length = undefined
    for item in ds.ReferencedStudySequence:
        item.is_undefined_length_sequence_item = undefined
    assert study_uid(io.BytesIO(encoded(ds, syntax)), syntax) == ds.StudyInstanceUID


def test_the_study_is_found_under_deflate() -> None:
    """And a bomb is not unpacked beyond a megabyte."""

    def packed(raw: bytes) -> bytes:
        squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return squeeze.compress(raw) + squeeze.flush()

    ds = image(5)
    assert study_uid(io.BytesIO(packed(encoded(ds, EXPLICIT))), DEFLATED) == ds.StudyInstanceUID
    assert study_uid(io.BytesIO(packed(b"\0" * 50_000_000)), DEFLATED) == ""


def test_it_is_empty_where_the_data_set_is_not_what_it_says() -> None:
    """Missing, cut off, of another representation, or longer than a UID can be."""
    ds = image(5)
    whole = encoded(ds, EXPLICIT)
    at = whole.index(b"\x20\0\x0d\0UI")
    assert study_uid(io.BytesIO(whole[: at + 10]), EXPLICIT) == ""
    assert study_uid(io.BytesIO(whole[:at] + whole[at:].replace(b"UI", b"LO", 1)), EXPLICIT) == ""
    assert study_uid(io.BytesIO(whole[: at + 6] + struct.pack("<H", 4000) + b"1" * 4000), EXPLICIT) == ""
    del ds.StudyInstanceUID
    assert study_uid(io.BytesIO(encoded(ds, EXPLICIT)), EXPLICIT) == ""
    assert study_uid(io.BytesIO(b""), EXPLICIT) == ""


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([EXPLICIT, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED]))
def test_no_bytes_raise(raw: bytes, syntax: str) -> None:
    """Whatever is sent has an answer of at most 64 characters."""
    assert len(study_uid(io.BytesIO(raw), syntax)) <= 64


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 3000), st.binary(min_size=1, max_size=8))
def test_no_mutation_raises(at: int, change: bytes) -> None:
    """Nor do a few wrong bytes in an ordinary image."""
    raw = bytearray(encoded(nested(), EXPLICIT))
    raw[at : at + len(change)] = change
    assert len(study_uid(io.BytesIO(bytes(raw)), EXPLICIT)) <= 64


def test_a_preface_makes_a_file() -> None:
    """pydicom opens preface and data set as a file, and finds in its meta what the sender said."""
    ds = image(3)
    raw = preface(ds.SOPClassUID, ds.SOPInstanceUID, EXPLICIT) + encoded(ds, EXPLICIT)
    read = pydicom.dcmread(io.BytesIO(raw))
    assert read.file_meta.TransferSyntaxUID == EXPLICIT
    assert read.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert read.StudyInstanceUID == ds.StudyInstanceUID
    assert read.PixelData == ds.PixelData


def test_a_preface_of_nonsense_is_bounded() -> None:
    """A UID of a megabyte, or of other letters, stays short and plain."""
    assert len(preface("1" * 10**6, "\u00e9" * 99, EXPLICIT)) < 500
