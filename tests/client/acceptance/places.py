"""Canaries in the structure of a file: private blocks, sequences, overlays, curves, heads and tails."""

from __future__ import annotations

import io
import struct
from typing import Final

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from tests.client.acceptance.case import Canary, Case, as_read, base, changed, element
from tests.client.intake_files import chest, set_pixels, to_bytes


def private(ds: Dataset, canary: Canary) -> None:
    """A block of a known maker with text, binary and a sequence in it."""
    inner = Dataset()
    inner.PatientName, inner.TextValue = canary.word, canary.word
    block = ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "LO", canary.word)
    block.add_new(0x20, "OB", canary.word.encode().ljust(20))
    block.add_new(0x30, "SQ", [inner])


def nested(ds: Dataset, canary: Canary) -> None:
    """Three sequences deep, all of public attributes."""
    one, two, three = Dataset(), Dataset(), Dataset()
    three.PersonName, three.TextValue, three.PatientID = canary.word, canary.word, canary.digits
    two.ContentSequence, one.RequestedProcedureCodeSequence = [three], [two]
    ds.RequestAttributesSequence = [one]


def private_in_a_sequence(ds: Dataset, canary: Canary) -> None:
    """A private block inside a sequence that the profile enters."""
    lut = _lut(np.arange(0, 4096, 16))
    block = lut.private_block(0x0009, canary.word.upper(), create=True)
    block.add_new(0x01, "LO", canary.word)
    ds.VOILUTSequence = [lut]


def _lut(entries: np.ndarray) -> Dataset:
    lut = Dataset()
    lut.LUTDescriptor = [len(entries), 0, 16]
    lut.add_new(0x00283006, "OW", entries.astype("<u2").tobytes())
    return lut


def lut_explanation(ds: Dataset, canary: Canary) -> None:
    """The explanations of both kinds of tables."""
    window, modality = _lut(np.arange(4096)), _lut(np.arange(4096))
    window.LUTExplanation = modality.LUTExplanation = canary.word
    modality.ModalityLUTType = canary.word
    ds.VOILUTSequence, ds.ModalityLUTSequence = [window], [modality]


def text_as_table(ds: Dataset, canary: Canary) -> None:
    """The entries of a window table are letters."""
    entries = np.arange(0, 4096, 16).astype("<u2")
    letters = np.frombuffer((canary.word * 4).encode().ljust(56), dtype="<u2")
    entries[: len(letters)] = letters
    ds.VOILUTSequence = [_lut(entries)]


def text_after_the_table(ds: Dataset, canary: Canary) -> None:
    """More entries than the descriptor announces."""
    entries = np.arange(0, 4096, 16).astype("<u2")
    lut = _lut(entries)
    lut.add_new(0x00283006, "OW", entries.tobytes() + canary.word.encode().ljust(20))
    ds.VOILUTSequence = [lut]


def overlay(ds: Dataset, canary: Canary) -> None:
    """A graphic layer of its own with a description."""
    ds.add_new(0x60000010, "US", 16)
    ds.add_new(0x60000011, "US", 40)
    ds.add_new(0x60000022, "LO", canary.word)
    ds.add_new(0x60001500, "LO", canary.word)
    ds.add_new(0x60003000, "OW", canary.word.encode().ljust(80, b"\0"))


def high_bits(canary: Canary) -> bytes:
    """An overlay of the old kind: letters in the four bits that no pixel uses."""
    pixels = chest(canary.number)
    nibbles = [half for byte in canary.word.encode() for half in (byte >> 4, byte & 15)]
    pixels.reshape(-1)[: len(nibbles)] |= np.array(nibbles, dtype="<u2") << 12
    ds = base(canary, pixels=pixels)
    for tag, value in ((0x60000010, 96), (0x60000011, 96), (0x60000100, 16), (0x60000102, 12)):
        ds.add_new(tag, "US", value)
    return to_bytes(ds)


def high_bits_empty(_source: Dataset, kept: Dataset) -> None:
    """No bit above the stored ones says anything."""
    assert kept.BitsStored == 12
    assert not (np.frombuffer(kept.PixelData, dtype="<u2") >> 12).any()


def icon(ds: Dataset, canary: Canary) -> None:
    """A small picture whose bytes are letters."""
    small = Dataset()
    set_pixels(small, chest(canary.number, 16))
    small.PixelData = canary.word.encode().ljust(512, b"\0")
    ds.IconImageSequence = [small]


def signature(ds: Dataset, canary: Canary) -> None:
    """A certificate names its owner."""
    item = Dataset()
    item.CertificateOfSigner, item.MACIDNumber = canary.word.encode().ljust(20), 1
    ds.DigitalSignaturesSequence = [item]


def original_attributes(ds: Dataset, canary: Canary) -> None:
    """What another system replaced, kept for the record."""
    item, old = Dataset(), Dataset()
    old.PatientName, old.PatientID = canary.word, canary.digits
    item.ModifiedAttributesSequence, item.ModifyingSystem = [old], canary.word
    ds.OriginalAttributesSequence = [item]
    encrypted = Dataset()
    encrypted.EncryptedContent = canary.word.encode().ljust(20)
    ds.EncryptedAttributesSequence = [encrypted]


def curves(ds: Dataset, canary: Canary) -> None:
    """Curves went out of the standard and stay in archives; two of the sixteen groups."""
    for group in (0x50000000, 0x501E0000):
        ds.add_new(group + 0x0030, "SH", canary.word)
        ds.add_new(group + 0x2500, "LO", canary.word)
        ds.add_new(group + 0x3000, "OW", canary.word.encode().ljust(40, b"\0"))


def file_meta(canary: Canary) -> bytes:
    """Every text that a file meta can hold."""
    ds = as_read(base(canary))
    meta = ds.file_meta
    meta.SourceApplicationEntityTitle = meta.SendingApplicationEntityTitle = canary.word.upper()
    meta.ReceivingApplicationEntityTitle = meta.ImplementationVersionName = canary.word
    meta.ImplementationClassUID = f"1.2.{canary.digits}"
    meta.PrivateInformationCreatorUID = f"1.3.{canary.digits}"
    meta.PrivateInformation = canary.word.encode().ljust(20)
    return to_bytes(ds)


def _raw(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    value = value + b" " * (len(value) % 2)
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def behind(canary: Canary) -> bytes:
    """An element behind the pixels: out of order, where few look."""
    return to_bytes(base(canary)) + _raw(0x0008, 0x1030, b"LO", canary.word.encode())


def twice_in_a_row(canary: Canary) -> bytes:
    """The model, and the model once more with a name, where it belongs."""
    data = to_bytes(base(canary))
    honest = _raw(0x0008, 0x1090, b"LO", b"DR-1")
    return data.replace(honest, _raw(0x0008, 0x1090, b"LO", canary.word.encode()) + honest)


def illegal_group(canary: Canary) -> bytes:
    """Groups that no standard has, at the head of the data set."""
    data = to_bytes(base(canary))
    at = 144 + struct.unpack_from("<I", data, 140)[0]
    words = b"".join(_raw(group, 0x0010, b"LO", canary.word.encode()) for group in (0x0003, 0x0005, 0x0007))
    return data[:at] + words + data[at:]


def tail(canary: Canary) -> bytes:
    """Bytes after the last element that are half an item."""
    return to_bytes(base(canary)) + b"\xfe\xff\x00\xe0" + canary.word.encode()


def garbage(canary: Canary) -> bytes:
    """Bytes after the last element that are nothing at all."""
    return to_bytes(base(canary)) + b"\0" * 64 + (canary.word * 9).encode()


def after_the_pixels(ds: Dataset, canary: Canary) -> None:
    """More bytes than the rows and columns need."""
    ds.PixelData = ds.PixelData + canary.word.encode().ljust(40)


def undefined_lengths(canary: Canary) -> bytes:
    """Sequences and items whose end is marked, not counted."""
    ds, item, deeper = base(canary), Dataset(), Dataset()
    deeper.PersonName = canary.word
    item.ContentSequence, item.CodeMeaning = [deeper], canary.word
    ds.ProcedureCodeSequence = [item, Dataset(), item]
    for keyword in (ds, item):
        for one in keyword:
            if one.VR == "SQ":
                one.is_undefined_length = True
                for part in one.value:
                    part.is_undefined_length_sequence_item = True
    return to_bytes(ds)


def as_unknown(canary: Canary) -> bytes:
    """The family name with VR UN, as a server writes what it does not know."""
    data = to_bytes(base(canary, PatientName=canary.word))
    plain = _raw(0x0010, 0x0010, b"PN", canary.word.encode())
    value = canary.word.encode() + b" " * (len(canary.word) % 2)
    assert plain in data
    return data.replace(plain, struct.pack("<HH2sHI", 0x0010, 0x0010, b"UN", 0, len(value)) + value)


def preamble(canary: Canary) -> bytes:
    """The 128 bytes in front, which also hold the head of a TIFF file in some exports."""
    return to_bytes(base(canary), preamble=(b"II*\0" + canary.word.encode()).ljust(128, b"\0"))


def multi_valued(ds: Dataset, canary: Canary) -> None:
    """One value wanted, several given."""
    ds.ViewPosition, ds.ManufacturerModelName = ["PA", canary.word], ["DR-1", canary.family]


def empties(ds: Dataset, _canary: Canary) -> None:
    """Every element of the profile that a sender may leave empty."""
    for keyword in (
        "KVP",
        "Exposure",
        "PixelSpacing",
        "ViewPosition",
        "WindowCenter",
        "StudyDate",
        "ImageType",
        "RescaleSlope",
    ):
        setattr(ds, keyword, None)
    ds.VOILUTSequence = []


def retired(ds: Dataset, canary: Canary) -> None:
    """Attributes that left the standard long ago and that modern lists forget."""
    for tag, vr in (
        (0x00080040, "US"),
        (0x00080041, "LO"),
        (0x00084000, "LT"),
        (0x00204000, "LT"),
        (0x40004000, "LT"),
    ):
        ds.add_new(tag, vr, 7 if vr == "US" else canary.word)
    ds.add_new(0x00201070, "IS", canary.digits[-6:])
    ds.add_new(0x00321000, "DA", f"{canary.studied:%Y%m%d}")
    ds.add_new(0x40080119, "PN", canary.word)
    ds.add_new(0x4008010B, "ST", canary.word)


def reread(canary: Canary) -> bytes:
    """An image that carries its own file once more, whole, in a private element."""
    whole = to_bytes(base(canary))
    ds = dcmread(io.BytesIO(whole))
    ds.private_block(0x0099, "COPY", create=True).add_new(0x01, "OB", whole + b"\0" * (len(whole) % 2))
    return to_bytes(ds, ExplicitVRLittleEndian)


CASES: Final = (
    Case("private block", "text, binary and a sequence under a known creator", changed(private)),
    Case(
        "private without creator",
        "(0019,1234) UN, no creator anywhere",
        element(0x00191234, "UN", lambda c: c.word.encode().ljust(20)),
    ),
    Case("private creator", "the creator's own name", element(0x00990010, "LO", "{word}")),
    Case(
        "private in a sequence",
        "a private block inside VOILUTSequence, which is entered",
        changed(private_in_a_sequence),
    ),
    Case("file within the file", "the whole original in a private OB", reread),
    Case("unknown public tag", "(0008,1FFE), in no edition", element(0x00081FFE, "LO", "{word}")),
    Case("retired attributes", "eight attributes of old editions", changed(retired)),
    Case("illegal groups", "groups 0003, 0005 and 0007", illegal_group),
    Case("three sequences deep", "PersonName inside RequestAttributesSequence", changed(nested)),
    Case("undefined lengths", "sequences with delimiters, an empty item between", undefined_lengths),
    Case(
        "original attributes",
        "OriginalAttributesSequence, EncryptedAttributesSequence",
        changed(original_attributes),
    ),
    Case("digital signature", "CertificateOfSigner", changed(signature)),
    Case("curves", "groups 5000 and 501E", changed(curves)),
    Case("overlay", "group 6000: data, label and description", changed(overlay)),
    Case(
        "overlay in high bits",
        "bits 12 to 15 of the pixels, announced by group 6000",
        high_bits,
        check=high_bits_empty,
    ),
    Case("icon", "pixels of IconImageSequence", changed(icon)),
    Case("table's explanation", "LUTExplanation and ModalityLUTType", changed(lut_explanation)),
    Case("text as a table", "LUTData of VOILUTSequence is letters", changed(text_as_table)),
    Case("text after a table", "LUTData is longer than its descriptor", changed(text_after_the_table)),
    Case("preamble", "the 128 bytes in front", preamble),
    Case("file meta", "application titles, private information, version name", file_meta),
    Case("trailing padding", "(FFFC,FFFC)", element(0xFFFCFFFC, "OB", lambda c: c.word.encode().ljust(20))),
    Case(
        "half an item at the end",
        "bytes after the last element",
        tail,
        outcome="parser-error",
        labelled=False,
    ),
    Case("garbage at the end", "bytes after the last element", garbage),
    Case("bytes after the pixels", "PixelData longer than rows times columns", changed(after_the_pixels)),
    Case("element behind the pixels", "StudyDescription after the pixels", behind),
    Case("element twice", "ManufacturerModelName twice in a row", twice_in_a_row, "duplicate-element"),
    Case("name as unknown VR", "PatientName with VR UN", as_unknown),
    Case(
        "two values for one",
        "second values of ViewPosition and ManufacturerModelName",
        changed(multi_valued),
        lost=("ViewPosition", "ManufacturerModelName"),
    ),
    Case(
        "empty values",
        "nine attributes of the profile left empty",
        changed(empties),
        lost=("KVP", "Exposure", "PixelSpacing", "ViewPosition"),
    ),
)
