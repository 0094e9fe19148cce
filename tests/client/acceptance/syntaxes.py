"""Canaries in the way a file is written: transfer syntaxes, codec comments, layouts of the pixels."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import compress
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from tests.client.acceptance.case import STORAGE, Canary, Case, Make, as_read, base
from tests.client.intake_files import chest, to_bytes

VOLUME: Final = ("PixelSpacing", "ImagerPixelSpacing", "ViewPosition")
"""What an enhanced object says elsewhere, or not at all."""


def written_as(syntax: str) -> Make:
    """The honest image with a remark, in another transfer syntax."""

    def make(canary: Canary) -> bytes:
        ds = base(canary, StudyDescription=canary.word, PatientComments=canary.word)
        ds.private_block(0x0029, "ACME 1", create=True).add_new(0x10, "LO", canary.word)
        if syntax == ExplicitVRBigEndian:
            pixels = np.frombuffer(ds.PixelData, dtype="<u2")
            ds.PixelData = pixels.astype(">u2").tobytes()
        return to_bytes(ds, syntax)

    return make


def same_pixels(source: Dataset, kept: Dataset) -> None:
    """Nothing of the image was lost."""
    assert np.array_equal(source.pixel_array, kept.pixel_array)


def rle(canary: Canary) -> bytes:
    """Run-length coding with letters after the last segment of its only frame."""
    ds = as_read(base(canary))
    compress(ds, RLELossless, generate_instance_uid=False)
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    ds.PixelData = encapsulate([frame + canary.word.encode().ljust(20, b"\0")])
    return to_bytes(ds, RLELossless)


def _eight_bits(canary: Canary) -> Dataset:
    ds = base(canary)
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.add_new("PixelData", "OB", (chest(canary.number) >> 4).astype("u1").tobytes())
    return ds


def jpeg(canary: Canary) -> bytes:
    """JPEG baseline whose header holds a comment and an EXIF block with a name."""
    ds, buffer = _eight_bits(canary), io.BytesIO()
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = canary.word, canary.word
    picture = Image.fromarray((chest(canary.number) >> 4).astype("u1"))
    picture.save(buffer, "JPEG", quality=95, comment=canary.word.encode(), exif=exif)
    ds.PixelData = encapsulate([buffer.getvalue()])
    ds["PixelData"].is_undefined_length = True
    return to_bytes(ds, JPEGBaseline8Bit)


def _with_comment(syntax: str, after: Callable[[bytes], int]) -> Make:
    """A codestream with a comment segment put in where `after` says."""

    def make(canary: Canary) -> bytes:
        ds = as_read(base(canary))
        compress(ds, syntax, generate_instance_uid=False)
        (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
        at, word = after(frame), canary.word.encode()
        marker = (
            b"\xff\x64" + struct.pack(">HH", 4 + len(word), 1)
            if syntax == JPEG2000Lossless
            else (b"\xff\xfe" + struct.pack(">H", 2 + len(word)))
        )
        ds.PixelData = encapsulate([frame[:at] + marker + word + frame[at:]])
        return to_bytes(ds, syntax)

    return make


def _behind_siz(frame: bytes) -> int:
    """SOC, then SIZ with its length: comments may stand behind it."""
    return 4 + struct.unpack_from(">H", frame, 4)[0]


def table_of_offsets(canary: Canary) -> bytes:
    """The table of offsets in front of the frames holds letters in place of numbers."""
    ds = as_read(base(canary))
    compress(ds, JPEGLSLossless, generate_instance_uid=False)
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    whole = encapsulate([frame], has_bot=True)
    ds.PixelData = (
        whole[:4] + struct.pack("<I", 16) + b"\0\0\0\0" + canary.word.encode().ljust(12) + whole[12:]
    )
    return to_bytes(ds, JPEGLSLossless)


def palette(canary: Canary) -> bytes:
    """Colours from a table whose entries are letters."""
    ds = _eight_bits(canary)
    ds.PhotometricInterpretation = "PALETTE COLOR"
    for colour in ("Red", "Green", "Blue"):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        ds.add_new(f"{colour}PaletteColorLookupTableData", "OW", (canary.word * 60).encode()[:512].ljust(512))
    return to_bytes(ds)


def inverted(canary: Canary) -> bytes:
    """MONOCHROME1, as half of all chest radiographs are."""
    ds = base(
        canary,
        PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape="INVERSE",
        StudyDescription=canary.word,
    )
    ds.PixelData = (4095 - chest(canary.number)).astype("<u2").tobytes()
    return to_bytes(ds)


def name_as_values(canary: Canary) -> bytes:
    """The patient's name as the grey values of the first row, a letter a pixel."""
    ds = _eight_bits(canary)
    pixels = bytearray(ds.PixelData)
    pixels[: len(canary.family)] = canary.family.upper().encode()
    ds.PixelData = bytes(pixels)
    return to_bytes(ds)


def name_as_wide_values(canary: Canary) -> bytes:
    """The patient's name in UTF-16 as the grey values of twelve-bit pixels."""
    pixels = chest(canary.number)
    letters = np.frombuffer(canary.family.upper().encode("utf-16-le"), dtype="<u2")
    pixels[0, : len(letters)] = letters
    return to_bytes(base(canary, pixels=pixels))


def enhanced(uid: str, modality: str) -> Make:
    """Many frames with functional groups that hold names beside the geometry."""

    def make(canary: Canary) -> bytes:
        ds = base(
            canary,
            Modality=modality,
            SOPClassUID=STORAGE + uid,
            ImageComments=canary.word,
            BodyPartExamined="CHEST",
        )
        for keyword in (*VOLUME, "Exposure", "ExposureTime", "XRayTubeCurrent", "KVP"):
            delattr(ds, keyword)
        ds.NumberOfFrames = 4
        ds.PixelData = b"".join(chest(canary.number + n).tobytes() for n in range(4))
        ds.SharedFunctionalGroupsSequence = [_shared(canary)]
        ds.PerFrameFunctionalGroupsSequence = [_frame(canary, n) for n in range(4)]
        return to_bytes(ds)

    return make


def _shared(canary: Canary) -> Dataset:
    shared, size, turn, anatomy = Dataset(), Dataset(), Dataset(), Dataset()
    size.PixelSpacing, size.SliceThickness = ["0.8", "0.8"], "2.5"
    turn.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    anatomy.PersonName, anatomy.FrameLaterality = canary.word, "U"
    units = Dataset()
    units.RescaleSlope, units.RescaleIntercept, units.RescaleType = "1", "-1024", canary.word
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [size], [turn]
    shared.FrameAnatomySequence, shared.PixelValueTransformationSequence = [anatomy], [units]
    shared.private_block(0x2005, canary.word, create=True).add_new(0x01, "LO", canary.word)
    return shared


def _frame(canary: Canary, number: int) -> Dataset:
    frame, content, place = Dataset(), Dataset(), Dataset()
    content.FrameComments, content.StackID = canary.word, canary.word
    content.FrameAcquisitionDateTime = f"{canary.studied:%Y%m%d}101112"
    content.InStackPositionNumber = number + 1
    place.ImagePositionPatient = ["0", "0", str(2.5 * number)]
    frame.FrameContentSequence, frame.PlanePositionSequence = [content], [place]
    return frame


def geometry_stays(_source: Dataset, kept: Dataset) -> None:
    """Spacing and place of every frame are there, the words beside them are not."""
    shared, frames = kept.SharedFunctionalGroupsSequence[0], kept.PerFrameFunctionalGroupsSequence
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.8, 0.8]
    assert [f.PlanePositionSequence[0].ImagePositionPatient[2] for f in frames] == [0, 2.5, 5, 7.5]
    assert [f.FrameContentSequence[0].InStackPositionNumber for f in frames] == [1, 2, 3, 4]


def head(modality: str, uid: str) -> Make:
    """A slice of a head, from which with its neighbours a face can be rebuilt."""

    def make(canary: Canary) -> bytes:
        ds = base(
            canary,
            Modality=modality,
            SOPClassUID=STORAGE + uid,
            BodyPartExamined="HEAD",
            StudyDescription=canary.word,
        )
        ds.ImagePositionPatient, ds.ImageOrientationPatient = ["0", "0", "5"], ["1", "0", "0", "0", "1", "0"]
        ds.RescaleSlope, ds.RescaleIntercept = "1", "-1024"
        del ds.ViewPosition
        return to_bytes(ds)

    return make


CASES: Final = (
    Case(
        "deflated",
        "remarks in Deflated Explicit VR Little Endian",
        written_as(DeflatedExplicitVRLittleEndian),
        check=same_pixels,
    ),
    Case(
        "big endian", "remarks in Explicit VR Big Endian", written_as(ExplicitVRBigEndian), check=same_pixels
    ),
    Case(
        "implicit VR",
        "remarks in Implicit VR Little Endian",
        written_as(ImplicitVRLittleEndian),
        check=same_pixels,
    ),
    Case("RLE", "letters behind the last segment", rle),
    Case("JPEG comment", "COM and EXIF segments of JPEG baseline", jpeg),
    Case("JPEG 2000 comment", "COM segment of the codestream", _with_comment(JPEG2000Lossless, _behind_siz)),
    Case("JPEG-LS comment", "COM segment of the codestream", _with_comment(JPEGLSLossless, lambda _: 2)),
    Case("table of offsets", "the basic offset table of JPEG-LS", table_of_offsets),
    Case("palette", "entries of the colour tables", palette, outcome="pixel-colour"),
    Case("MONOCHROME1", "remarks beside inverted pixels", inverted, check=same_pixels),
    Case(
        "name as grey values", "the patient's name, a letter a pixel", name_as_values, outcome="deid-verify"
    ),
    Case(
        "name as wide grey values",
        "the patient's name in UTF-16, a letter a pixel",
        name_as_wide_values,
        outcome="deid-verify",
    ),
    Case(
        "enhanced CT",
        "functional groups: comments, anatomy, private blocks",
        enhanced("2.1", "CT"),
        check=geometry_stays,
        lost=VOLUME,
    ),
    Case(
        "enhanced MR",
        "functional groups: comments, anatomy, private blocks",
        enhanced("4.1", "MR"),
        check=geometry_stays,
        lost=VOLUME,
    ),
    Case("head CT", "a face in the pixels of many slices", head("CT", "2"), outcome="head-ct"),
)
