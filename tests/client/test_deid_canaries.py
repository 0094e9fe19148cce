"""Nasty files, each with a name hidden in one place: after intake no byte of the hospital's data holds it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from client.intake.ingest import ingest
from client.intake.parse import quiet
from common.logs import configure
from tests.client.intake_files import chest, export, image, new_site, set_pixels, to_bytes

Nasty = Callable[[str, int], bytes]


def with_element(tag: int, vr: str, value: Callable[[str], object]) -> Nasty:
    def make(canary: str, number: int) -> bytes:
        ds = image(number)
        ds.add_new(tag, vr, value(canary))
        return to_bytes(ds)

    return make


def attribute(keyword: str, form: str = "{}") -> Nasty:
    return lambda canary, number: to_bytes(image(number, **{keyword: form.format(canary)}))


def private(canary: str, number: int) -> bytes:
    ds = image(number)
    block = ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "LO", canary)
    block.add_new(0x20, "OB", canary.encode())
    return to_bytes(ds)


def nested(canary: str, number: int) -> bytes:
    ds, outer, inner = image(number), Dataset(), Dataset()
    inner.PersonName = canary
    inner.TextValue = canary
    outer.ContentSequence = [inner]
    ds.RequestAttributesSequence = [outer]
    return to_bytes(ds)


def inside_an_entered_sequence(canary: str, number: int) -> bytes:
    ds, lut = image(number), Dataset()
    lut.LUTDescriptor, lut.LUTExplanation = [4, 0, 16], canary
    lut.add_new(0x00283006, "US", [0, 100, 1000, 4095])
    lut.add_new(0x00091001, "LO", canary)
    ds.VOILUTSequence = [lut]
    return to_bytes(ds)


def preamble(canary: str, number: int) -> bytes:
    return to_bytes(image(number), preamble=canary.encode().ljust(128, b"\0"))


def tail(canary: str, number: int) -> bytes:
    return to_bytes(image(number)) + b"\xfe\xff\x00\xe0" + canary.encode()


def trailing_padding(canary: str, number: int) -> bytes:
    ds = image(number)
    ds.add_new(0xFFFCFFFC, "OB", canary.encode())
    return to_bytes(ds)


def after_the_pixels(canary: str, number: int) -> bytes:
    ds = image(number)
    ds.PixelData = ds.PixelData + canary.encode().ljust(40)
    return to_bytes(ds)


def file_meta(canary: str, number: int) -> bytes:
    ds = dcmread(io.BytesIO(to_bytes(image(number))))
    ds.file_meta.SourceApplicationEntityTitle = canary
    ds.file_meta.SendingApplicationEntityTitle = canary
    ds.file_meta.PrivateInformationCreatorUID = "1.2.3"
    ds.file_meta.PrivateInformation = canary.encode()
    return to_bytes(ds)


def overlay(canary: str, number: int) -> bytes:
    ds = image(number)
    ds.add_new(0x60000010, "US", 16)
    ds.add_new(0x60000022, "LO", canary)
    ds.add_new(0x60003000, "OW", canary.encode().ljust(64, b"\0"))
    return to_bytes(ds)


def curve(canary: str, number: int) -> bytes:
    ds = image(number)
    ds.add_new(0x50003000, "OW", canary.encode().ljust(40, b"\0"))
    return to_bytes(ds)


def high_bits(canary: str, number: int) -> bytes:
    """One letter in the four unused bits of each two pixels."""
    pixels = chest(number)
    nibbles = [half for byte in canary.encode() for half in (byte >> 4, byte & 15)]
    pixels.reshape(-1)[: len(nibbles)] |= np.array(nibbles, dtype="<u2") << 12
    ds = image(number)
    set_pixels(ds, pixels)
    return to_bytes(ds)


def icon(canary: str, number: int) -> bytes:
    ds, small = image(number), Dataset()
    set_pixels(small, chest(number, 16))
    small.PixelData = canary.encode().ljust(512, b"\0")
    ds.IconImageSequence = [small]
    return to_bytes(ds)


def signature(canary: str, number: int) -> bytes:
    ds, item = image(number), Dataset()
    item.CertificateOfSigner = canary.encode()
    ds.DigitalSignaturesSequence = [item]
    return to_bytes(ds)


def image_type(canary: str, number: int) -> bytes:
    return to_bytes(image(number, ImageType=["ORIGINAL", "PRIMARY", canary.upper()[:16]]))


def wrong_number(canary: str, number: int) -> bytes:
    """A name where a decimal number belongs: KVP."""
    data = to_bytes(image(number, KVP="120.000000000000"))
    return data.replace(b"120.000000000000", canary.encode()[:16].ljust(16))


NASTY: dict[str, Nasty] = {
    "private block": private,
    "nested sequence": nested,
    "entered sequence": inside_an_entered_sequence,
    "preamble": preamble,
    "tail": tail,
    "trailing padding": trailing_padding,
    "after the pixels": after_the_pixels,
    "file meta": file_meta,
    "overlay": overlay,
    "curve": curve,
    "high bits": high_bits,
    "icon": icon,
    "image type": image_type,
    "name for a number": wrong_number,
    "comments": attribute("ImageComments"),
    "kernel": attribute("ConvolutionKernel"),
    "serial number": attribute("DeviceSerialNumber"),
    "study description": attribute("StudyDescription"),
    "protocol": attribute("ProtocolName"),
    "patient name": attribute("PatientName", "{}^Eva"),
    "body part": attribute("BodyPartExamined"),
    "software": attribute("SoftwareVersions"),
    "window explanation": attribute("WindowCenterWidthExplanation"),
    "study id": attribute("StudyID"),
    "patient number": attribute("PatientID"),
    "accession": attribute("AccessionNumber"),
    "physician": attribute("ReferringPhysicianName"),
    "station in its own model": attribute("StationName"),
    "unknown tag": with_element(0x00191234, "UN", lambda c: c.encode()),
    "unknown public tag": with_element(0x00081FFE, "LO", lambda c: c),
    "private group 0099": with_element(0x00990010, "LO", lambda c: c),
    "unlimited text": with_element(0x0040A160, "UT", lambda c: c * 40),
    "encapsulated document": with_element(0x00420011, "OB", lambda c: c.encode()),
    "address": with_element(0x00101040, "LO", lambda c: c),
    "digital signature": signature,
}


def canary_of(number: int) -> str:
    return f"Kanari{number:02d}Vogel"


def hits(data: bytes, canary: str) -> bool:
    """Whether the canary is in the bytes in any usual coding, in full or its telling half."""
    lowered = data.lower()
    word = canary.lower()
    return any(w in lowered for w in (word.encode(), word[:8].encode(), word.encode("utf-16-le")))


@pytest.fixture(scope="module")
def taken_in(tmp_path_factory):
    base = tmp_path_factory.mktemp("canaries")
    folder = base / "export"
    folder.mkdir()
    for number, (place, make) in enumerate(NASTY.items()):
        with quiet():
            data = make(canary_of(number), number)
        if place != "high bits":
            assert hits(data, canary_of(number)), place
        (folder / f"{canary_of(number)}.dcm").write_bytes(data)
    site = new_site(base / "site")
    stream = io.StringIO()
    configure("DEBUG", stream)
    try:
        report = ingest(site, folder, None, workers=1)
    finally:
        logging.getLogger().handlers.clear()
    return site, report, stream.getvalue()


def test_the_nasty_files_are_taken_in_not_merely_refused(taken_in):
    _, report, _ = taken_in
    assert report.refused == {"parser-error": 1}  # the tail: half an item after the last element
    assert report.accepted == len(NASTY) - 1
    assert report.received == report.accepted + report.unchanged + sum(report.refused.values())


@pytest.mark.parametrize("place", NASTY)
def test_no_canary_in_any_byte_and_originals_are_sealed(taken_in, place):
    site, _, _ = taken_in
    canary = canary_of(list(NASTY).index(place))
    for path in [p for root in (site.data, site.state) for p in root.rglob("*") if p.is_file()]:
        assert not hits(path.read_bytes(), canary), path.name
        assert canary.lower() not in str(path).lower()


def test_no_canary_in_unused_bits(taken_in):
    site, _, _ = taken_in
    for path in site.dicom.rglob("*.dcm"):
        ds = dcmread(path)
        assert ds.BitsStored == 12
        assert not (np.frombuffer(ds.PixelData, dtype="<u2") >> 12).any()  # pixel_array would hide them


def test_no_canary_in_logs_reports_or_reasons(taken_in):
    site, report, log = taken_in
    assert "ingest.done" in log
    reasons = " ".join(path.read_text() for path in site.quarantine.glob("*.json"))
    for text in (log, json.dumps(report.as_record()), reasons):
        assert "kanari" not in text.lower()


def test_what_research_needs_is_still_there(tmp_path):
    site = new_site(tmp_path / "site")
    ingest(site, export(tmp_path / "in", 1), None, workers=1)
    (path,) = site.dicom.rglob("*.dcm")
    ds = dcmread(path)
    assert (ds.Manufacturer, ds.ManufacturerModelName) == ("Aster Imaging", "DR-1")
    assert (ds.PatientSex, ds.PatientAge, ds.ViewPosition, ds.Modality) == ("F", "065Y", "PA", "CR")
    assert ds.DeviceSerialNumber.startswith("S")
    assert np.array_equal(ds.pixel_array, chest(0))
