"""The short way into a file ends where the long way ends, or is not taken."""

from __future__ import annotations

import io
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from client.deid.plain import read_plain
from client.intake.parse import quiet
from tests.client.intake_files import image, to_bytes
from tests.data import shared_data

CHARSET = 0x00080005


def same(data: bytes) -> bool:
    """Whether the short way was taken; it may not have led elsewhere."""
    with quiet():
        ours = read_plain(data)
    if ours is None:
        return False
    with quiet():
        theirs = dcmread(io.BytesIO(data))
        for one, other in ((ours, theirs), (ours.file_meta, theirs.file_meta)):  # no attribute more or less
            assert {k: type(v) for k, v in vars(one).items() if k != "file_meta"} == {
                k: type(v) for k, v in vars(other).items() if k != "file_meta"
            }
        assert not own_tables(ours) & own_tables(read_plain(data))
        assert ours.get(CHARSET) == theirs.get(CHARSET)  # converted by whoever reads it first
    raw, as_read = (
        {tag: item for tag, item in zip(ds.keys(), ds.values(), strict=True) if tag != CHARSET}
        for ds in (ours, theirs)
    )
    assert raw == as_read  # raw elements, with their places in the file
    assert all(isinstance(item, RawDataElement) for item in raw.values())
    assert list(ours.keys()) == list(theirs.keys())
    assert (
        dict(zip(ours.file_meta.keys(), ours.file_meta.values(), strict=True)).keys()
        == theirs.file_meta.keys()
    )
    with quiet():
        assert ours.file_meta == theirs.file_meta
    with quiet():
        for item in list(theirs.values()):
            keyword = keyword_for_tag(item.tag)
            if keyword:
                for ask in (_get, getattr_or_error):
                    ours_says, theirs_says = ask(ours, keyword), ask(theirs, keyword)
                    assert (type(ours_says), ours_says) == (type(theirs_says), theirs_says), keyword
                assert (keyword in ours) == (keyword in theirs)
                assert item.tag in ours
        for absent in ("NoSuchThing", "PatientMotherBirthName", 0x00100010, (0x0010, 0x0010)):
            assert _get(ours, absent) == _get(theirs, absent)
            assert ours.get("NoSuchThing", 7) == 7
            assert (absent in ours) == (absent in theirs)
    assert ours.preamble == theirs.preamble
    assert ours.original_encoding == theirs.original_encoding
    assert ours.original_character_set == theirs.original_character_set
    assert ours._character_set == theirs._character_set
    assert (ours.is_implicit_VR, ours.is_little_endian) == (theirs.is_implicit_VR, theirs.is_little_endian)
    return True


def own_tables(ds: Dataset) -> set[int]:
    """The tables and buffers of a data set; those of two that live at once are never the same."""
    return {id(value) for value in vars(ds).values() if isinstance(value, dict | io.BytesIO)}


def _get(ds: Dataset, keyword: object) -> object:
    try:
        return ds.get(keyword)
    except Exception as error:  # noqa: BLE001 - a damaged value may be refused, in the same way
        return type(error)


def getattr_or_error(ds: Dataset, keyword: str) -> object:
    try:
        return getattr(ds, keyword)
    except Exception as error:  # noqa: BLE001 - see above
        return type(error)


def nested() -> Dataset:
    ds, inner = image(), Dataset()
    inner.PatientName = "X^Y"
    ds.RequestAttributesSequence = [inner]
    ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    ds.PatientName = "Yamada^Tarou=山田^太郎"
    return ds


PLAIN = to_bytes(image())
NESTED = to_bytes(nested())


def test_a_plain_file_goes_the_short_way_and_any_other_does_not():
    assert same(PLAIN)
    assert same(NESTED)
    assert not same(to_bytes(image(), ImplicitVRLittleEndian))
    assert not same(b"")
    assert not same(PLAIN[:-1])
    assert not same(PLAIN + b"\0" * 7)
    assert not same(b"\0" * 128 + b"DICM")


def test_what_is_no_element_is_left_to_pydicom():
    """An item's end at the top, also with something behind it: pydicom decides what such a file means."""
    end = b"\xfe\xff\x0d\xe0UL\x04\x00\0\0\0\0"
    behind = b"\xff\xff\x10\x00LO\x02\x00X "
    assert read_plain(PLAIN + behind) is not None
    assert read_plain(PLAIN + end) is None
    assert read_plain(PLAIN + end + behind) is None


def test_every_real_file_reads_the_same_either_way():
    paths = sorted(shared_data("dicom_multivendor").glob("*.dcm"))
    taken = sum(same(path.read_bytes()) for path in paths)
    assert taken > 10


def test_the_file_of_the_benchmark_goes_the_short_way():
    data = Path(str(get_testdata_file("CT_small.dcm", download=False))).read_bytes()
    assert same(data)


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(["plain", "nested"]),
    st.lists(st.tuples(st.integers(0, 1600), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 60),
)
def test_a_damaged_file_reads_the_same_either_way(kind, changes, cut):
    raw = bytearray({"plain": PLAIN, "nested": NESTED}[kind])
    for at, byte in changes:
        raw[at % len(raw)] = byte
    same(bytes(raw[: len(raw) - cut]))
