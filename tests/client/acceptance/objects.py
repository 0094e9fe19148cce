"""Objects that are no plain radiograph: documents, reports, states, directories, screens, ultrasound."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from tests.client.acceptance.case import REVIEW, STORAGE, Canary, Case, Make, base
from tests.client.acceptance.drawn import write_on
from tests.client.intake_files import chest, set_pixels, to_bytes


def without_pixels(uid: str, modality: str) -> Make:
    """An object of another kind about this patient, with the canary in everything it tells."""

    def make(canary: Canary) -> bytes:
        ds, item = base(canary), Dataset()
        for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
            delattr(ds, keyword)
        ds.SOPClassUID = STORAGE + uid
        ds.Modality = modality
        item.TextValue, item.PersonName, item.ValueType = f"Befund {canary.word}", canary.word, "TEXT"
        ds.ContentSequence, ds.ContentLabel, ds.ContentDescription = [item], canary.word.upper(), canary.word
        ds.ContentCreatorName, ds.DocumentTitle = canary.word, canary.word
        ds.EncapsulatedDocument = f"%PDF-1.4 ({canary.word}) Tj".encode().ljust(60)
        ds.MIMETypeOfEncapsulatedDocument = "application/pdf"
        return to_bytes(ds)

    return make


def directory(canary: Canary) -> bytes:
    """The table of contents of a disc: names of patients and of files that climb out of it."""
    ds, record = Dataset(), Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.1.3.10", canary.uid
    ds.FileSetID = canary.word.upper()[:16]
    record.DirectoryRecordType, record.PatientName, record.PatientID = "PATIENT", canary.word, canary.patient
    record.ReferencedFileID = ["..", "..", "..", "ETC", "PASSWD"]
    ds.DirectoryRecordSequence = [record]
    return to_bytes(ds)


def segmentation(canary: Canary) -> bytes:
    """One bit a pixel, with a name for what was outlined."""
    ds, segment = base(canary), Dataset()
    ds.SOPClassUID, ds.Modality = STORAGE + "66.4", "SEG"
    segment.SegmentNumber, segment.SegmentLabel, segment.SegmentDescription = 1, canary.word, canary.word
    ds.SegmentSequence = [segment]
    return to_bytes(ds)


def ultrasound(canary: Canary) -> bytes:
    """A grey fan with the name in the bar above it, as every machine writes it."""
    ds = base(canary, SOPClassUID=STORAGE + "6.1", Modality="US", StationName=canary.word)
    set_pixels(ds, write_on(chest(canary.number, 384), f"{canary.family} {canary.digits}", (8, 8), 3800))
    return to_bytes(ds)


def secondary(canary: Canary) -> bytes:
    """A film that was scanned, with its flashed name."""
    ds = base(
        canary,
        SOPClassUID=STORAGE + "7",
        Modality="OT",
        ConversionType="DF",
        SecondaryCaptureDeviceID=canary.word,
    )
    set_pixels(ds, write_on(chest(canary.number, 384), canary.family, (20, 20), 3800))
    return to_bytes(ds)


def screen(canary: Canary) -> bytes:
    """A picture of a workstation, sent as CT."""
    ds = base(
        canary, SOPClassUID=STORAGE + "2", Modality="CT", ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"]
    )
    set_pixels(ds, write_on(chest(canary.number, 384), canary.family, (20, 20), 3800))
    return to_bytes(ds)


def colour(canary: Canary) -> bytes:
    """A colour picture in an image class for grey ones."""
    ds = base(canary, StudyDescription=canary.word)
    grey = (chest(canary.number) >> 4).astype("u1")
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.add_new("PixelData", "OB", np.stack([grey, grey, 255 - grey], axis=-1).tobytes())
    return to_bytes(ds)


def unknown_coding(uid: str) -> Make:
    """An image in a coding that nothing here reads."""

    def make(canary: Canary) -> bytes:
        word = canary.word.encode().ljust(20)
        ds = base(canary, StudyDescription=canary.word)
        ds.add_new("PixelData", "OB", encapsulate([word]))
        ds["PixelData"].is_undefined_length = True
        data = to_bytes(ds, JPEG2000Lossless)
        old, new = (_meta_uid(one) for one in (JPEG2000Lossless, uid))
        length = struct.unpack_from("<I", data, 140)[0] + len(new) - len(old)
        return data[:140] + struct.pack("<I", length) + data[144:].replace(old, new, 1)

    return make


def _meta_uid(uid: str) -> bytes:
    value = uid.encode() + b"\0" * (len(uid) % 2)
    return struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", len(value)) + value


CASES: Final = (
    Case("PDF", "EncapsulatedDocument", without_pixels("104.1", "DOC"), outcome="sop-class-document"),
    Case("report", "ContentSequence of an SR", without_pixels("88.33", "SR"), outcome="sop-class-report"),
    Case(
        "key images", "ContentSequence of a KO", without_pixels("88.59", "KO"), outcome="sop-class-key-object"
    ),
    Case(
        "presentation state",
        "ContentLabel and texts of a PR",
        without_pixels("11.1", "PR"),
        outcome="sop-class-presentation",
    ),
    Case(
        "radiotherapy plan",
        "names in an RTPLAN",
        without_pixels("481.5", "RTPLAN"),
        outcome="sop-class-radiotherapy",
    ),
    Case("waveform", "names in an ECG", without_pixels("9.1.1", "ECG"), outcome="sop-class-waveform"),
    Case(
        "raw data", "names in a raw data object", without_pixels("66", "OT"), outcome="sop-class-segmentation"
    ),
    Case("segmentation", "SegmentLabel", segmentation, outcome="sop-class-segmentation"),
    Case(
        "directory",
        "DICOMDIR with names and climbing file numbers",
        directory,
        outcome="sop-class-dicomdir",
        labelled=False,
    ),
    Case("ultrasound", "a name burned into the bar above the fan", ultrasound, outcome=REVIEW),
    Case("secondary capture", "a flashed name", secondary, outcome=REVIEW),
    Case("screen save", "a picture of a workstation sent as CT", screen, outcome=REVIEW),
    Case("colour", "RGB pixels in a radiograph", colour, outcome="pixel-colour"),
    Case(
        "JPEG XL",
        "transfer syntax 1.2.840.10008.1.2.4.110",
        unknown_coding("1.2.840.10008.1.2.4.110"),
        outcome="transfer-syntax",
    ),
    Case(
        "video",
        "transfer syntax MPEG-4",
        unknown_coding("1.2.840.10008.1.2.4.102"),
        outcome="transfer-syntax",
    ),
)
