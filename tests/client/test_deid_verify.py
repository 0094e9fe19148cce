"""The second scan finds what the first left, wherever it lies in the bytes."""

from __future__ import annotations

import io

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from client.deid.deidentify import Deidentifier, encode, mark
from client.deid.pixels import decode
from client.deid.profile import built_in
from client.deid.pseudonyms import Pseudonyms
from client.deid.verify import Wanted, check, identifiers
from client.intake.parse import quiet
from common.errors import FileRefused
from tests.client.intake_files import image, to_bytes

DEIDENTIFIER = Deidentifier(built_in(), Pseudonyms(b"k" * 32, b"s" * 32))


def source_of(ds: Dataset) -> Dataset:
    return dcmread(io.BytesIO(to_bytes(ds)))


def cleaned(source: Dataset) -> Dataset:
    with quiet():
        return DEIDENTIFIER.apply(source, decode(source))


def scan(target: Dataset, source: Dataset) -> None:
    with quiet():
        data = encode(target)
    check(data, identifiers(source))


def test_a_clean_file_passes_before_and_after_it_is_marked():
    source = source_of(image())
    target = cleaned(source)
    assert "PatientIdentityRemoved" not in target
    scan(target, source)
    mark(target)
    scan(target, source)
    back = dcmread(io.BytesIO(encode(target)))
    assert back.PatientIdentityRemoved == "YES"
    assert [c.CodeValue for c in back.DeidentificationMethodCodeSequence] == ["113100", "113107", "113108"]
    assert back.PatientAge == "065Y"


LEAKS = {
    "family name in a protocol": ("ProtocolName", "Thorax ABENDROTH0 pa"),
    "given name as part of a word": ("StudyDescription", "xwilhelminax"),
    "patient number": ("PatientComments", "see HOSP-7700000"),
    "number alone": ("SeriesDescription", "nr 7700000"),
    "birth date": ("SeriesDescription", "born 19550417"),
    "study date": ("ContentDate", "20210312"),
    "accession": ("RequestedProcedureID", "acc000000"),
    "physician": ("OperatorsName", "Quackenbush"),
    "institution": ("InstitutionName", "Sankt Florian Krankenhaus"),
    "station": ("StationName", "RAUM7XR"),
    "serial number": ("DeviceSerialNumber", "SN998877"),
    "study UID": ("StudyID", "1.2.276.0.7230010.3.1"),
    "UID of the image": ("SOPInstanceUID", "1.2.276.0.7230010.3.1.1.1"),
}


@pytest.mark.parametrize("place", LEAKS)
def test_an_identifier_that_slipped_through_is_found(place):
    source = source_of(image())
    target = cleaned(source)
    with quiet():
        setattr(target, *LEAKS[place])
    with pytest.raises(FileRefused) as caught:
        scan(target, source)
    assert caught.value.code == "deid-verify"
    assert LEAKS[place][1] not in str(caught.value)


def test_a_name_hidden_in_the_pixels_is_found():
    source = source_of(image())
    target = cleaned(source)
    target.PixelData = b"Wilhelmina" + target.PixelData[10:]
    with pytest.raises(FileRefused):
        scan(target, source)


def test_a_name_from_a_nested_sequence_or_private_block_of_the_source_counts_too():
    ds = image()
    item = Dataset()
    item.PatientName = "Zwischenzeilen^X"
    ds.ReferencedPatientSequence = [item]
    source = source_of(ds)
    target = cleaned(source)
    target.SeriesDescription = "Zwischenzeilen"
    with pytest.raises(FileRefused):
        scan(target, source)


@pytest.mark.parametrize("what", ["preamble", "tail", "private", "overlay", "meta", "garbage", "bits"])
def test_bytes_that_should_not_be_there_are_refused(what):
    source = source_of(image())
    target = cleaned(source)
    if what == "private":
        target.private_block(0x0029, "NICE", create=True).add_new(1, "LO", "harmless")
    if what == "overlay":
        target.add_new(0x60003000, "OW", b"\0\0")
    if what == "bits":
        target.PixelData = b"\xff\xff" + target.PixelData[2:]
    if what == "meta":
        target.file_meta.SourceApplicationEntityTitle = "HARMLESS"
    buffer = io.BytesIO()
    dcmwrite(buffer, target, enforce_file_format=True)
    data = buffer.getvalue()
    data = {"preamble": b"X" + data[1:], "tail": data + b"\0" * 8, "garbage": data[:200]}.get(what, data)
    with pytest.raises(FileRefused):
        check(data, identifiers(source))


def test_a_short_number_inside_a_random_uid_is_chance_and_no_leak():
    """Measured: six digits met our own UIDs in one image of 500."""
    target_digits = DEIDENTIFIER.names.uid("1.2.276.0.7230010.3.1")[12:18]
    source = source_of(image(AccessionNumber=target_digits))
    scan(cleaned(source), source)


def test_a_patient_called_like_a_body_part_loses_the_body_part_and_not_the_image():
    source = source_of(image(PatientName="Chest^Aster"))
    target = cleaned(source)
    assert "BodyPartExamined" not in target
    assert "Manufacturer" not in target
    scan(target, source)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (Wanted(numbers=frozenset({"7711223"})), "nr 77-11 223"),
        (Wanted(days=frozenset({"19550417"})), "born 17.4.1955"),
        (Wanted(tight=frozenset({"hosp77a"})), "see HOSP 77-A."),
    ],
)
def test_a_value_that_would_be_kept_and_its_bytes_are_met_in_every_writing(wanted, text):
    assert wanted.touches(text)
    assert not wanted.touches("Thorax nativ 5 mm")
    target = cleaned(source_of(image()))
    with quiet():
        check(encode(target), wanted)
        target.StudyDescription = text
        with pytest.raises(FileRefused):
            check(encode(target), wanted)
