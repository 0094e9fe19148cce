"""Colour of ultrasound and secondary capture as luma; colour of anything else refused."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset

from client.deid.colour import describe_as_grey, is_colour
from client.deid.pixels import decode
from common.errors import FileRefused
from tests.client.intake_files import image, to_bytes

US = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1", "Modality": "US"}
COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [90, 90, 90]]], np.uint8)
LUMA = [[76, 150], [29, 90]]


def coloured(pixels: np.ndarray, kind: str = "RGB", **fields: object) -> Dataset:
    ds = image(**US)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, kind, 0
    ds.Rows, ds.Columns = pixels.shape[-3:-1]
    if pixels.ndim == 4:
        ds.NumberOfFrames = pixels.shape[0]
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    raw = pixels.tobytes()
    ds.add_new("PixelData", "OB", raw + b"\0" * (len(raw) % 2))
    for keyword, value in fields.items():
        setattr(ds, keyword, value)
    to_bytes(ds)  # gives it file meta
    return ds


def palette() -> Dataset:
    ds = coloured(COLOURS)
    ds.PhotometricInterpretation, ds.SamplesPerPixel = "PALETTE COLOR", 1
    del ds.PlanarConfiguration
    ds.add_new("PixelData", "OB", bytes([0, 1, 2, 3]))
    for number, name in enumerate(("Red", "Green", "Blue")):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 16])
        words = COLOURS.reshape(4, 3)[:, number].astype("<u2") * 257
        setattr(ds, f"{name}PaletteColorLookupTableData", words.tobytes())
    return ds


def test_red_green_and_blue_weigh_as_bt_601_says():
    pixels = decode(coloured(COLOURS), colour=True)
    assert pixels.dtype == np.uint8
    assert pixels.tolist() == LUMA


def test_a_palette_of_sixteen_bits_is_looked_up_and_becomes_eight():
    assert decode(palette(), colour=True).tolist() == LUMA


def test_luma_of_ybr_is_its_first_channel():
    ybr = np.full((2, 2, 3), 128, np.uint8)
    ybr[..., 0] = [[10, 60], [120, 250]]
    assert np.abs(decode(coloured(ybr, "YBR_FULL"), colour=True).astype(int) - ybr[..., 0]).max() <= 1


def test_frames_stay_frames():
    assert decode(coloured(np.stack([COLOURS] * 3)), colour=True).tolist() == [LUMA] * 3


def test_the_header_then_describes_grey_and_a_grey_one_is_left_alone():
    ds = coloured(COLOURS)
    assert is_colour(ds)
    describe_as_grey(ds)
    assert not is_colour(ds)
    assert (ds.PhotometricInterpretation, ds.SamplesPerPixel, ds.BitsStored) == ("MONOCHROME2", 1, 8)
    grey = image(PhotometricInterpretation="MONOCHROME1")
    describe_as_grey(grey)
    assert (grey.PhotometricInterpretation, grey.BitsStored) == ("MONOCHROME1", 12)


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (lambda: decode(coloured(COLOURS)), "pixel-colour"),
        (lambda: decode(coloured(COLOURS, "CMYK"), colour=True), "pixel-colour"),
        (lambda: decode(coloured(COLOURS, Rows=20_000, Columns=20_000), colour=True), "pixel-size"),
        (lambda: decode(coloured(COLOURS, Rows=40), colour=True), "pixel-decode"),
    ],
)
def test_other_colour_and_lies_about_it_are_refused_by_name(made, code):
    with pytest.raises(FileRefused) as caught:
        made()
    assert caught.value.code == code
