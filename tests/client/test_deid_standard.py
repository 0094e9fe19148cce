"""The profile against the standard's own table, attribute by attribute: the table is the oracle."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.datadict import keyword_for_tag

from client.deid.deidentify import Deidentifier, encode
from client.deid.explain import TREATMENTS, WRITTEN, everything_else, lines, one
from client.deid.profile import built_in
from client.deid.pseudonyms import Pseudonyms
from client.deid.settings import DeidSettings
from client.deid.standard import IN_WORDS, PRIVATE, demand_of, table
from client.deid.tighten import effective
from tests.client.intake_files import image, set_pixels

NAMES = Pseudonyms(b"k" * 32, b"s" * 32)
EVERYTHING = DeidSettings(private_creators=tuple({rule.creator for rule in built_in().offered}))
NOTHING = DeidSettings(patient_characteristics=False, device_make=False, longitudinal_dates=False)
BY_OPTION = {
    "113107": {"StudyDate", "AcquisitionDate"},
    "113108": {"PatientSex", "PatientAge"},
}
"""Options of the standard that we use, and all that each lets stay here."""
MAKES_EMPTY = {"Z", "Z/D", "X/Z", "X/Z/D", "X/Z/U*"}


def full_source() -> pydicom.Dataset:
    """An image that holds a value for every attribute of the table it can, all of them telling."""
    source = image()
    for row in table():
        if row.number is None or not row.keyword or row.number >> 16 in (0x0000, 0x0002, 0x0004):
            continue
        if row.keyword not in source:
            vr = pydicom.datadict.dictionary_VR(row.number).split(" or ")[0]
            source.add_new(row.number, vr, telling(vr))
    set_pixels(source, np.arange(64, dtype="<u2").reshape(8, 8))
    source.add_new(0x50000010, "US", 7)
    source.add_new(0x60003000, "OW", b"\1\2\3\4")
    source.add_new(0x60024000, "LT", "CANARY overlay")
    source.add_new(0x600E3000, "OW", b"\1\2\3\4")
    block = source.private_block(0x0029, "CANARY HEADER", create=True)
    block.add_new(0x10, "LO", "CANARY private")
    return source


def telling(vr: str) -> object:
    item = pydicom.Dataset()
    item.PatientName = "CANARY^nested"
    values = {
        "SQ": [item],
        "DA": "19990101",
        "TM": "010101",
        "DT": "19990101010101",
        "UI": "1.2.3.4.5",
        "AS": "044Y",
    }
    values |= dict.fromkeys(("OB", "OW", "UN", "OD", "OF", "OL"), b"CANARY")
    values |= dict.fromkeys(("US", "UL", "SS", "SL"), 4711) | dict.fromkeys(("FD", "FL"), 47.11)
    values |= {"DS": "47.11", "IS": "4711", "AT": 0x00100010, "UR": "http://canary", "PN": "CANARY^Name"}
    return values.get(vr, "CANARY")


def written(settings: DeidSettings) -> tuple[pydicom.Dataset, pydicom.Dataset]:
    """A source, and what comes back from the bytes written of it."""
    source = full_source()
    pixels = np.frombuffer(source.PixelData, "<u2").reshape(8, 8)
    target = Deidentifier(effective(settings), NAMES).apply(source, pixels)
    return source, pydicom.dcmread(io.BytesIO(encode(target)))


def test_the_table_is_whole():
    rows = table()
    assert len(rows) == 656
    assert rows[-1] == PRIVATE
    assert {row.basic for row in rows} <= IN_WORDS.keys()
    assert {row.tag for row in rows if "x" in row.tag} == {"(50xx,xxxx)", "(60xx,3000)", "(60xx,4000)"}


@pytest.mark.parametrize(
    ("number", "basic"),
    [
        (0x00100010, "Z"),
        (0x50000010, "X"),
        (0x501E3000, "X"),
        (0x60003000, "X"),
        (0x601E4000, "X"),
        (0x60000010, None),
        (0x00291010, "X"),
        (0x00020003, "U"),
        (0x00080070, None),
    ],
)
def test_repeating_groups_private_ones_and_file_meta_are_found(number, basic):
    demand = demand_of(number)
    assert (demand and demand.basic) == basic


@pytest.mark.parametrize("settings", [DeidSettings(), EVERYTHING, NOTHING], ids=["default", "all", "none"])
def test_nothing_of_the_table_is_kept_unless_an_enabled_option_allows_it(settings):
    """The oracle: attribute by attribute, the words of the standard against the words of the profile."""
    for line in lines(effective(settings)):
        if line.basic:
            assert line.verdict != "LOOSER", line.attribute
        if line.verdict.startswith("option") and line.basic and line.verdict != "option 113111":
            assert line.attribute in BY_OPTION[line.verdict[-6:]]
    looser = {line.verdict for line in lines(effective(NOTHING))}
    assert not any(verdict.startswith("option") for verdict in looser)


def test_the_verdict_notices_a_profile_that_keeps_too_much():
    """The check itself can fail: a profile that kept a birth date or a description would be told apart."""
    rules = dict(built_in().rules)
    rules["PatientBirthDate"] = replace(rules["PatientBirthDate"], action="shift")
    rules["StudyID"] = replace(rules["StudyID"], action="keep")
    loose = {line.attribute for line in lines(replace(built_in(), rules=rules)) if line.verdict == "LOOSER"}
    assert loose == {"PatientBirthDate", "StudyID"}


@pytest.mark.parametrize("settings", [DeidSettings(), EVERYTHING, NOTHING], ids=["default", "all", "none"])
def test_the_bytes_do_what_the_table_of_treatments_says(settings):
    """Every attribute of the standard's table is put in with a telling value; what is written is compared."""
    source, target = written(settings)
    told = {line.tag: line for line in lines(effective(settings))}
    for element in source.iterall():
        demand = demand_of(element.tag)
        if demand is None:
            continue
        line = told[demand.tag]
        found = target.get(element.tag)
        if line.treatment == "removed":
            assert found is None, line
        elif line.treatment == "emptied":
            assert not found.value, line
        elif line.treatment in ("replaced", "shifted") and element.value:
            assert found is None or found.value != element.value, line
    assert b"CANARY" not in encode(target).upper()


def test_what_is_written_is_what_is_told():
    """No element stands in a written file that the table of treatments does not name as staying."""
    _, target = written(EVERYTHING)
    stays = {line.attribute for line in lines(effective(EVERYTHING)) if line.treatment != "removed"}
    found = {element.keyword for element in target.iterall()} | {e.keyword for e in target.file_meta}
    assert found <= stays
    assert {keyword_for_tag(element.tag) for element in target.file_meta} <= WRITTEN.keys()


def test_file_meta_names_no_sender():
    source, target = written(DeidSettings())
    source.file_meta = pydicom.dataset.FileMetaDataset()
    source.file_meta.SourceApplicationEntityTitle = "CANARY"
    assert one(built_in(), "SourceApplicationEntityTitle").treatment == "removed"
    assert "SourceApplicationEntityTitle" not in target.file_meta
    assert target.preamble == b"\0" * 128


def test_every_line_says_all_of_it():
    found = lines(built_in())
    assert all(line.tag and line.attribute and line.action and line.reason for line in found)
    assert {line.treatment for line in found} == set(TREATMENTS)
    assert not [tag for tag, n in Counter(line.tag for line in found).items() if n > 1]
    assert everything_else().treatment == "removed"


@pytest.mark.parametrize(
    ("attribute", "treatment", "verdict"),
    [
        ("PatientName", "replaced", "as strict"),
        ("PatientBirthDate", "emptied", "as strict"),
        ("PatientSex", "kept", "option 113108"),
        ("StudyDate", "shifted", "option 113107"),
        ("Manufacturer", "kept", "not in the table"),
        ("SoftwareVersions", "removed", "stricter"),
        ("StationName", "removed", "as strict"),
        ("StudyDescription", "removed", "as strict"),
        ("OverlayData", "removed", "as strict"),
        ("PixelData", "kept", "not in the table"),
        ("MediaStorageSOPInstanceUID", "replaced", "as strict"),
        (0x00291008, "removed", "as strict"),
        (0x50020005, "removed", "as strict"),
    ],
)
def test_single_attributes_are_told(attribute, treatment, verdict):
    line = one(built_in(), attribute)
    assert (line.treatment, line.verdict) == (treatment, verdict)


def test_what_dicom_does_not_know_is_not_explained():
    assert one(built_in(), "PatientNam") is None
    assert one(built_in(), 0x00100003) is None
