"""Pixels: exact, bounded before allocation, and nothing but stored values."""

from __future__ import annotations

import io

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels import compress
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from client.deid.actions import day_of, years
from client.deid.pixels import Layout, decode, only_stored_bits, within_stored
from client.intake.parse import quiet
from common.errors import FileRefused
from tests.client.intake_files import chest, image, set_pixels, to_bytes
from tests.data import shared_data


def read(data: bytes):
    return dcmread(io.BytesIO(data))


def refused_as(ds) -> str:
    with pytest.raises(FileRefused) as caught, quiet():
        decode(ds)
    return caught.value.code


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_lossless_compression_gives_back_every_value(syntax):
    ds = read(to_bytes(image()))
    compress(ds, syntax, generate_instance_uid=False)
    with quiet():
        assert np.array_equal(decode(read(to_bytes(ds, syntax))), chest(0))


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
@pytest.mark.parametrize("part", [0.3, 0.95])
def test_a_compressed_frame_cut_short_is_refused(syntax, part):
    ds = read(to_bytes(image()))
    compress(ds, syntax, generate_instance_uid=False)
    whole = to_bytes(ds, syntax)
    start = whole.index(b"\xe0\x7f\x10\x00")
    cut = whole[: start + int((len(whole) - start) * part)]
    with pytest.raises((FileRefused, EOFError)), quiet():
        decode(read(cut))


def test_big_endian_is_turned():
    ds = read(to_bytes(image()))
    ds.PixelData = chest(0).astype(">u2").tobytes()
    ds.set_original_encoding(False, False)
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    with quiet():
        assert np.array_equal(decode(ds), chest(0))


def test_unused_bits_are_cleared_and_signs_kept():
    words = np.array([[0xF123, 0x0FFF]], dtype="<u2")
    unsigned = only_stored_bits(words, Layout(1, 1, 2, 16, 12, 11, signed=False))
    signed = only_stored_bits(words, Layout(1, 1, 2, 16, 12, 11, signed=True))
    high = only_stored_bits(words, Layout(1, 1, 2, 16, 12, 15, signed=False))
    assert unsigned.tolist() == [[0x123, 0xFFF]]
    assert signed.tolist() == [[0x123, -1]]
    assert high.tolist() == [[0xF12, 0x0FF]]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"Rows": 60000, "Columns": 60000}, "pixel-size"),
        ({"NumberOfFrames": 900000}, "pixel-size"),
        ({"NumberOfFrames": 2}, "pixel-truncated"),
        ({"Rows": 0}, "pixel-size"),
        ({"BitsAllocated": 32}, "pixel-bits"),
        ({"BitsStored": 17}, "pixel-bits"),
        ({"HighBit": 3}, "pixel-bits"),
        ({"SamplesPerPixel": 3}, "pixel-colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "pixel-colour"),
        ({"PixelData": b""}, "pixel-missing"),
    ],
)
def test_a_header_that_lies_is_refused_by_name_before_anything_is_allocated(changes, code):
    ds = read(to_bytes(image()))
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    assert refused_as(ds) == code


def test_an_unknown_compression_is_refused():
    ds = read(to_bytes(image()))
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.110"  # JPEG XL
    assert refused_as(ds) == "transfer-syntax"


def test_twelve_bit_jpeg_is_read_close_to_its_lossless_twin():
    """Four files show one CT slice; pydicom declines the lossy 12-bit ones, GDCM reads them."""
    folder = shared_data("dicom_multivendor")
    name = "CT_GE_MEDICAL_SYS_HiSpeed_CT_i_{:02d}.dcm"
    with quiet():
        twin = decode(dcmread(folder / name.format(5))).astype(int)
        for number in (3, 6):
            assert np.array_equal(decode(dcmread(folder / name.format(number))), twin)


def test_a_twelve_bit_decoder_that_rings_over_the_top_gives_white_and_not_black():
    """Eight pixels of this ten-bit radiograph decode to 1024; its twins, compressed otherwise, end at 1023."""
    folder = shared_data("dicom_multivendor")
    name = "CR_FUJI_PHOTO_FIL_IRS_{:02d}.dcm"
    with quiet():
        rung, *twins = (decode(dcmread(folder / name.format(n))).astype(int) for n in (1, 0, 2))
    assert rung.max() == 1023
    assert all(np.abs(rung - twin).max() < 100 for twin in twins)


def test_values_above_the_stored_bits_are_cut_where_they_ring_and_refused_where_an_overlay_may_hide():
    plan = Layout(1, 1, 3, 16, 10, 9, signed=False)
    assert within_stored(np.array([[5, 1023, 1030]], dtype="<u2"), plan).tolist() == [[5, 1023, 1023]]
    with pytest.raises(FileRefused) as caught:
        within_stored(np.array([[5, 1023, 1024 + 900]], dtype="<u2"), plan)
    assert caught.value.code == "pixel-bits"


def test_signed_and_odd_sized_images_survive():
    pixels = chest(1, 65)[:, :63]
    ds = image()
    set_pixels(ds, pixels)
    with quiet():
        assert np.array_equal(decode(read(to_bytes(ds))), pixels)


@pytest.mark.parametrize(
    ("age", "born", "studied", "expected"),
    [
        ("045Y", "", "", 45),
        ("089Y", "", "", 89),
        ("090Y", "", "", 90),
        ("103Y", "", "", 90),
        ("018M", "", "", 1),
        ("010D", "", "", 0),
        ("", "19550417", "20210416", 65),
        ("", "19550417", "20210417", 66),
        ("", "18990101", "20210417", 90),
        ("", "20210418", "20210417", None),
        ("old", "", "20210417", None),
    ],
)
def test_ages_are_whole_years_and_nobody_is_older_than_ninety(age, born, studied, expected):
    assert years(age, day_of(born), day_of(studied)) == expected
