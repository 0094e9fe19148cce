"""What stands only in a remark or a private element is searched for too, and ordinary words are not."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from client.deid.deidentify import Deidentifier, encode
from client.deid.pixels import decode
from client.deid.profile import built_in
from client.deid.pseudonyms import Pseudonyms
from client.deid.said import dates_in, said
from client.deid.settings import DeidSettings
from client.deid.verify import check, identifiers
from client.intake.ingest import ingest
from client.intake.parse import quiet
from client.preprocess.lookup import read_table
from common.errors import FileRefused
from tests.client.intake_files import chest, image, new_site, to_bytes
from tests.data import shared_data

DEIDENTIFIER = Deidentifier(built_in(), Pseudonyms(b"k" * 32, b"s" * 32))


def read(ds: Dataset) -> Dataset:
    return dcmread(io.BytesIO(to_bytes(ds)))


def with_private(value: object, vr: str = "LO", creator: str = "CONSOLE NOTES 1") -> Dataset:
    ds = image()
    ds.private_block(0x0019, creator, create=True).add_new(1, vr, value)
    return ds


def nested(**attributes: object) -> Dataset:
    ds, outer, inner = image(), Dataset(), Dataset()
    for keyword, value in attributes.items():
        setattr(inner, keyword, value)
    outer.ContentSequence = [inner]
    ds.RequestAttributesSequence = [outer]
    return ds


HIDDEN = {
    "a remark that announces a name": (image(PatientComments="Repeat for Dagmar Zollinger"), "zollinger"),
    "a remark with a title": (image(ImageComments="seen by Dr. Zollinger today"), "zollinger"),
    "family, given": (image(StudyDescription="Thorax Zollinger, Dagmar"), "zollinger"),
    "caret form": (image(PatientComments="see ZOLLINGER^DAGMAR"), "dagmar"),
    "a number in a remark": (image(AdditionalPatientHistory="old file KH48213"), "kh48213"),
    "other names": (image(OtherPatientNames="Zollinger^D"), "zollinger"),
    "other numbers": (image(OtherPatientIDs="KH48213"), "kh48213"),
    "a nested name": (nested(PersonName="Zollinger^D"), "zollinger"),
    "a nested number": (nested(PatientID="KH48213"), "kh48213"),
    "a nested remark": (nested(PatientComments="patient Zollinger"), "zollinger"),
    "a private name alone": (with_private("Dagmar Zollinger"), "zollinger"),
    "a private number": (with_private("KH48213"), "kh48213"),
    "private bytes": (with_private(b"Zollinger^Dagmar|KH48213", "UN"), "zollinger"),
}


@pytest.mark.parametrize("place", HIDDEN)
def test_who_stands_only_there_is_found_where_text_is_open(place: str) -> None:
    ds, word = HIDDEN[place]
    source = read(ds)
    source.Manufacturer = f"Aster {word.title()} Imaging"  # the profile permits its form
    with quiet():
        target = DEIDENTIFIER.apply(source, decode(source))
    target.Manufacturer = f"Aster {word.title()} Imaging"
    with pytest.raises(FileRefused) as caught:
        check(encode(target), identifiers(source))
    assert caught.value.code == "deid-verify"
    assert word not in str(caught.value).casefold()


def test_a_value_that_would_be_kept_and_names_somebody_is_left_out(tmp_path) -> None:
    """The image is not lost for it; nor is the maker of an image whose remark names somebody else."""
    folder = tmp_path / "in"
    folder.mkdir()
    named = image(1, Manufacturer="Zollinger Dagmar", PatientComments="for Dagmar Zollinger")
    (folder / "a.dcm").write_bytes(to_bytes(named))
    (folder / "b.dcm").write_bytes(to_bytes(image(2, PatientComments="Repeat for Dagmar Zollinger")))
    site = new_site(tmp_path / "site")
    assert ingest(site, folder, None, workers=1).accepted == 2
    makers = [dcmread(path).get("Manufacturer") for path in site.dicom.rglob("*.dcm")]
    assert sorted(makers, key=str) == ["Aster Imaging", None]


ORDINARY = {
    "words of the examination": image(
        StudyDescription="Chest mobile DR-1", ManufacturerModelName="Mobile DR-1"
    ),
    "the maker in a private element": with_private("SIEMENS"),
    "a documented private element": with_private("HiSpeed CT/i", creator="GEMS_ACQU_01"),
    "the private creator": with_private(3, "US", creator="ASTER NOTES"),
    "a view in a remark": image(PatientComments="for PA view, Chest"),
}


@pytest.mark.parametrize("case", ORDINARY)
def test_ordinary_words_are_no_leak(case: str) -> None:
    source = read(ORDINARY[case])
    if case.startswith("the maker"):
        source.Manufacturer = "SIEMENS"
    with quiet():
        check(encode(DEIDENTIFIER.apply(source, decode(source))), identifiers(source))


@pytest.mark.parametrize(
    "text",
    [
        "19550317",
        "born 1955-03-17",
        "1955.3.17",
        "17.03.1955",
        "17.3.55",
        "03/17/1955",
        "17-Mar-1955",
        "17th March 1955",
        "17 mar 55",
        "März 17, 1955",
        "MAR 17 1955",
    ],
)
def test_a_date_is_known_however_it_is_written(text: str) -> None:
    assert "19550317" in dates_in(text)


@pytest.mark.parametrize(
    ("name", "month"),
    [
        *(("January", 1), ("Februar", 2), ("mars", 3), ("März", 3), ("APR", 4), ("may", 5), ("Mai", 5)),
        *(("June", 6), ("juli", 7), ("Aug", 8), ("septembre", 9), ("Okt", 10), ("october", 10), ("Nov", 11)),
        *(("december", 12), ("Dezember", 12)),
    ],
)
def test_every_month_is_known_by_its_name(name: str, month: int) -> None:
    assert f"1955{month:02d}17" in dates_in(f"17. {name} 1955")
    assert f"1955{month:02d}17" in dates_in(f"{name} 17, 1955")


@pytest.mark.parametrize(
    "text", ["", "4,195503171", "1955.03", "31.02.1955", "99.99.1955", "2.25.19550317123"]
)
def test_what_is_no_date_is_none(text: str) -> None:
    assert not dates_in(text)


@pytest.mark.parametrize("text", ["calibrated 17.04.1955", "x 1955-04-17", "SW 12 Mar 2021", "03/12/2021"])
def test_the_sources_dates_in_common_writings_are_found_in_open_text(text: str) -> None:
    source = read(image())
    with quiet():
        target = DEIDENTIFIER.apply(source, decode(source))
    target.ManufacturerModelName = text
    with pytest.raises(FileRefused):
        check(encode(target), identifiers(source))


def test_a_date_that_stands_only_in_a_remark_counts_and_inside_a_number_or_uid_it_does_not() -> None:
    source = read(image(PatientComments="operated on 5 May 1999"))
    with quiet():
        target = DEIDENTIFIER.apply(source, decode(source))
    assert "19990505" in said(source).days
    target.FrameOfReferenceUID = "2.25.19990505"
    target.Exposure = "119990505"
    check(encode(target), identifiers(source))
    target.ManufacturerModelName = "05.05.99"
    with pytest.raises(FileRefused):
        check(encode(target), identifiers(source))


def test_real_files_lose_nothing_to_the_wider_search(tmp_path) -> None:
    """Of 119 files of 27 makes none may be held back for a word of its machine."""
    site = new_site(tmp_path / "site")
    permissive = DeidSettings(
        head_ct="accept", derived_primary=("CR", "DX", "MG", "CT", "MR"), burned_in_text="ignore"
    )
    report = ingest(replace(site, deid=permissive), shared_data("dicom_multivendor"), None, workers=1)
    assert "deid-verify" not in report.refused
    assert report.accepted >= 75  # the others wait for a person, or are refused for what they are


@pytest.mark.parametrize("vr", ["OW", "US"])
def test_a_lookup_table_of_a_big_endian_file_is_turned(vr: str) -> None:
    """As words the parser turns it, as binary it does not; both must come out as the same table."""
    entries = np.arange(4096) * 3
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 16])
    table.add_new("LUTData", vr, entries.astype(">u2").tobytes() if vr == "OW" else entries.tolist())
    ds = image(VOILUTSequence=[table])
    ds.PixelData = chest(0).astype(">u2").tobytes()
    with quiet():
        source = dcmread(io.BytesIO(to_bytes(ds, ExplicitVRBigEndian)))
        back = dcmread(io.BytesIO(encode(DEIDENTIFIER.apply(source, decode(source)))))
    assert np.array_equal(read_table(back, back.VOILUTSequence[0]).entries, entries)
    assert np.array_equal(back.pixel_array, chest(0))
