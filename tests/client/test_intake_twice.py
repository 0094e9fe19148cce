"""Nothing stands twice in a file that is taken in, however it is written and however deep."""

import io
import struct

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from client.intake.parse import quiet, read
from common.errors import FileRefused
from tests.client.intake_files import image, to_bytes

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)


def code_of(data: bytes) -> str:
    try:
        with quiet():
            read(data)
    except FileRefused as refusal:
        return refusal.code
    return "read"


def name(ds: Dataset, syntax: str) -> bytes:
    """PatientName as it stands in the file."""
    text = str(ds.PatientName).encode()
    text += b" " * (len(text) % 2)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    if syntax == ImplicitVRLittleEndian:
        return struct.pack("<HHI", 0x10, 0x10, len(text)) + text
    return struct.pack(order + "HH2sH", 0x10, 0x10, b"PN", len(text)) + text


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_second_name_hides_nothing_in_any_syntax(syntax):
    """Readers show the last of two: the first would be looked for nowhere."""
    ds = image()
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    honest = to_bytes(ds, syntax)
    one = name(ds, syntax)
    assert honest.count(one) == 1
    assert code_of(honest) == "read"
    assert code_of(honest.replace(one, one.replace(b"Abendroth", b"Quackenbu") + one)) == "duplicate-element"
    assert code_of(honest.replace(one, one + one)) == "duplicate-element"


@pytest.mark.parametrize("syntax", SYNTAXES[:2])
def test_a_second_element_far_from_the_first_is_found(syntax):
    ds = image()
    honest = to_bytes(ds, syntax)
    assert code_of(honest + name(ds, syntax)) == "duplicate-element"


@pytest.mark.parametrize("syntax", SYNTAXES[:2])
@pytest.mark.parametrize("undefined", [False, True])
def test_an_element_twice_in_an_item_is_found(syntax, undefined):
    ds, inner, deeper = image(), Dataset(), Dataset()
    deeper.PatientName = "Kowalski^Otto"
    inner.RequestAttributesSequence = [deeper]
    ds.RequestAttributesSequence = [inner]
    for one in (ds["RequestAttributesSequence"], inner["RequestAttributesSequence"]):
        one.is_undefined_length = undefined
        one.value[0].is_undefined_length_sequence_item = undefined
    honest = to_bytes(ds, syntax)
    assert code_of(honest) == "read"
    again = Dataset()
    again.PatientName = "Kowalski^Otto"
    said = name(again, syntax)
    twice = honest.replace(said, said + said)
    if not undefined:
        twice = grown(twice, len(said), syntax)
    assert code_of(twice) == "duplicate-element"


def grown(data: bytes, by: int, syntax: str) -> bytes:
    """Every length around the inner name made longer by so much."""
    head = (
        struct.pack("<HH", 0x40, 0x275)
        if syntax == ImplicitVRLittleEndian
        else struct.pack("<HH2sH", 0x40, 0x275, b"SQ", 0)
    )
    item = struct.pack("<HH", 0xFFFE, 0xE000)
    made = bytearray(data)
    at = -1
    for _ in range(2):
        at = data.index(head, at + 1)
        for place in (at + len(head), at + len(head) + 4 + len(item)):
            struct.pack_into("<I", made, place, struct.unpack_from("<I", made, place)[0] + by)
    return bytes(made)


def test_an_element_twice_in_the_file_meta_is_found():
    data = to_bytes(image())
    title = struct.pack("<HH2sH", 2, 0x16, b"AE", 4) + b"KOWA"
    size = struct.unpack_from("<I", data, 140)[0]
    end = 144 + size
    once = data[:140] + struct.pack("<I", size + 12) + data[144:end] + title + data[end:]
    twice = data[:140] + struct.pack("<I", size + 24) + data[144:end] + title * 2 + data[end:]
    assert code_of(once) == "read"
    assert code_of(twice) == "duplicate-element"


def test_a_deflated_file_is_looked_into():
    ds = image()
    data = to_bytes(ds, DeflatedExplicitVRLittleEndian)
    assert code_of(data) == "read"


def test_fragments_of_compressed_pixels_are_no_data_sets():
    """Their bytes may look like anything, also like one element that stands twice."""
    ds = image()
    element = struct.pack("<HH2sH", 0x10, 0x10, b"PN", 4) + b"OTTO"
    ds.PixelData = encapsulate([element * 2])
    ds["PixelData"].is_undefined_length = True
    data = to_bytes(ds, "1.2.840.10008.1.2.4.50")
    assert dcmread(io.BytesIO(data)).PatientName == ds.PatientName
    assert code_of(data) == "read"
