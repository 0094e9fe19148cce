"""The stream of a DICOMweb answer, cut in every place a network may cut it, and damaged in every way we know."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.pacs.file_meta import instance_uid
from client.pacs.multipart import MAX_HEAD_BYTES, Broken, boundary_of, parts
from client.pacs.part10 import preface
from tests.studies import study

BOUNDARY = b"9e3bd926-5140"


def body(*files: bytes, end: bytes = b"--\r\n") -> bytes:
    """A multipart body."""
    head = b"\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(b"--" + BOUNDARY + head + file + b"\r\n" for file in files) + b"--" + BOUNDARY + end


def read(data: bytes, size: int) -> list[bytes]:
    """Every part, with the stream cut into pieces of this size."""
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    return [b"".join(part) for part in parts(pieces, BOUNDARY)]


@given(
    files=st.lists(st.binary(max_size=200).filter(lambda data: BOUNDARY not in data), min_size=0, max_size=4),
    size=st.integers(1, 300),
)
@settings(max_examples=200, deadline=None)
def test_any_files_cut_anywhere_come_out_as_they_went_in(files: list[bytes], size: int) -> None:
    assert read(body(*files), size) == files


def test_a_part_that_looks_like_a_delimiter_is_a_part() -> None:
    tricky = b"\r\n--" + BOUNDARY[:-1] + b"\r\n\r\n--\r\n"
    assert read(body(tricky, b"x"), 3) == [tricky, b"x"]


def test_parts_that_are_not_read_are_passed() -> None:
    got = [next(part, b"") for part in parts(iter([body(b"one", b"two")]), BOUNDARY)]
    assert got == [b"one", b"two"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>an error</html>",
        body(b"one", b"two")[:-20],
        body(b"one", end=b""),
        b"--" + BOUNDARY + b"\r\n" + b"x" * (2 * MAX_HEAD_BYTES),
    ],
)
def test_a_stream_that_is_cut_off_is_not_whole(data: bytes) -> None:
    """An instance that ends early must not pass for one."""
    with pytest.raises(Broken):
        read(data, 64)


def test_memory_is_of_a_piece_and_not_of_a_part() -> None:
    """A part of 64 MiB is given out as it comes."""
    piece = b"\0" * 2**20
    head = b"--" + BOUNDARY + b"\r\n\r\n"
    largest = 0
    stream = iter([head, *([piece] * 64), b"\r\n--" + BOUNDARY + b"--"])
    for part in parts(stream, BOUNDARY):
        for given_out in part:
            largest = max(largest, len(given_out))
    assert largest <= 2 * 2**20


@pytest.mark.parametrize(
    ("kind", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=abc', b"abc"),
        ('multipart/related; boundary="a b:c"', b"a b:c"),
        ("multipart/related", None),
        ("application/dicom", None),
        ("text/html; boundary=abc", None),
        ("", None),
    ],
)
def test_the_boundary_of_a_content_type(kind: str, boundary: bytes | None) -> None:
    assert boundary_of(kind) == boundary


def test_a_file_says_which_instance_it_is() -> None:
    (file,) = study(0)
    assert instance_uid(file) == "1.2.276.0.7230010.3.1.1.1"
    assert instance_uid(preface("1.2", "1.2.3.44", "1.2.840.10008.1.2") + b"rest") == "1.2.3.44"


@given(st.binary(max_size=300))
def test_what_is_no_file_names_none(data: bytes) -> None:
    """Whatever comes, no error comes with it."""
    assert instance_uid(data) == "" or data[128:132] == b"DICM"
    assert isinstance(instance_uid(b"\0" * 128 + b"DICM" + data), str)
