"""Our writer makes the bytes that pydicom makes of the same data set."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from client.deid.deidentify import Deidentifier, mark
from client.deid.encoding import element, encode
from client.deid.pixels import decode
from client.deid.profile import built_in
from client.deid.pseudonyms import Pseudonyms
from client.intake.parse import quiet, read
from common.errors import FileRefused
from tests.client.intake_files import image, to_bytes
from tests.data import shared_data

DEIDENTIFIER = Deidentifier(built_in(), Pseudonyms(b"k" * 32, b"s" * 32))
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"), max_size=40)


SMALL = to_bytes(image(), preamble=b"\0" * 128)


def by_pydicom(target: Dataset) -> bytes:
    buffer = io.BytesIO()
    with quiet():
        dcmwrite(buffer, target, enforce_file_format=True)
    return buffer.getvalue()


def cleaned(data: bytes) -> Dataset:
    with quiet():
        source = read(data)
        target = DEIDENTIFIER.apply(source, decode(source), Counter())
    mark(target)
    return target


def test_a_plain_image_and_one_with_a_table_are_written_as_pydicom_writes_them():
    table = Dataset()
    table.LUTDescriptor = [4, 0, 16]
    table.add_new(0x00283006, "US", [0, 100, 1000, 4095])
    for ds in (image(), image(VOILUTSequence=[table], PatientAge="034Y", PixelSpacing=[0.1, 0.2])):
        target = cleaned(to_bytes(ds))
        ours = encode(target)
        assert ours == by_pydicom(target)
        again = dcmread(io.BytesIO(ours))
        for one in again.iterall():
            assert one is not None  # every element converted, none left as the writer made it
        assert by_pydicom(again) == ours


def test_every_real_file_is_written_as_pydicom_writes_it():
    folder = shared_data("dicom_multivendor")
    written = 0
    for path in sorted(folder.glob("*.dcm")):
        try:
            target = cleaned(path.read_bytes())
        except FileRefused:
            continue
        ours = encode(target)
        assert ours == by_pydicom(target), path.name
        written += 1
    assert written > 80


@settings(deadline=None, max_examples=100)
@given(
    TEXT,
    st.integers(0, 65535),
    st.lists(st.integers(-99999, 99999), min_size=1, max_size=6),
    st.binary(max_size=99),
)
def test_any_value_is_written_as_pydicom_writes_it(text, number, numbers, raw):
    target, plain = (dcmread(io.BytesIO(SMALL)) for _ in range(2))
    values = {
        0x00081030: ("LO", text.strip()),
        0x00104000: ("LT", text.strip()),
        0x00280010: ("US", number),
        0x00200013: ("IS", [str(n) for n in numbers]),
        0x00281200: ("OW", raw + b"\0" * (len(raw) % 2)),
        0x00080014: ("UI", "1.2." + str(number)),
    }
    with quiet():
        for tag, (vr, value) in values.items():
            target[tag] = element(tag, vr, value)
            plain.add_new(tag, vr, value)
    assert encode(target) == by_pydicom(plain)


def test_an_element_of_ours_is_bytes_until_somebody_asks():
    target = cleaned(to_bytes(image()))
    assert isinstance(target.get_item(0x00100020), RawDataElement)
    assert target.PatientID.startswith("P")
    assert encode(target) == by_pydicom(target)


@pytest.mark.parametrize(("vr", "value"), [("US", 65536), ("SS", 40000), ("LO", "Jürgen")])
def test_what_a_vr_cannot_hold_is_not_written(vr, value):
    with pytest.raises(ValueError):
        element(0x00281052, vr, value)
