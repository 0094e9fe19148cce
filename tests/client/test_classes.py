"""Which images pass by themselves, which wait, and which CT is a head."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from client.deid.heads import shows_head
from client.deid.settings import DeidSettings, Region
from client.deid.text.found import Decision
from client.deid.text.regions import boxes_of, region_of
from client.intake.classes import check_class
from common.errors import FileRefused
from tests.client.intake_files import image

STORAGE = "1.2.840.10008.5.1.4.1.1."
CT = {"SOPClassUID": STORAGE + "2", "Modality": "CT", "BodyPartExamined": "CHEST"}
AXIAL = ["ORIGINAL", "PRIMARY", "AXIAL"]


def outcome(ds: Dataset, settings: DeidSettings | None = None, decision: Decision | None = None) -> str:
    try:
        check_class(ds, settings, decision)
    except FileRefused as refusal:
        return refusal.code
    return "passes"


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY"]}, "passes"),
        ({}, "passes"),  # CR: the attribute is optional there
        ({"ImageType": ["DERIVED", "PRIMARY"]}, "review-derived"),
        ({"ImageType": ["ORIGINAL", "SECONDARY"]}, "review-derived"),
        ({"ImageType": "ORIGINAL"}, "review-derived"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "SCREEN SAVE"]}, "review-screen-save"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "SCREENSAVE"]}, "review-screen-save"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "SCREENSHOT"]}, "review-screen-save"),
        ({"BurnedInAnnotation": "YES"}, "review-burned-in"),
        ({"BurnedInAnnotation": "NO"}, "passes"),
        ({**CT, "ImageType": AXIAL}, "passes"),
        (CT, "review-derived"),  # CT must say it
        ({"SOPClassUID": STORAGE + "1.1", "Modality": "DX"}, "review-derived"),
        ({"SOPClassUID": STORAGE + "6.1", "Modality": "US"}, "review-ultrasound"),
        ({"SOPClassUID": STORAGE + "3.1", "Modality": "US"}, "review-ultrasound"),
        ({"SOPClassUID": STORAGE + "7", "Modality": "OT"}, "review-secondary-capture"),
        ({"SOPClassUID": STORAGE + "7.4", "Modality": "OT"}, "review-secondary-capture"),
        ({"SOPClassUID": STORAGE + "88.11", "Modality": "SR"}, "sop-class-report"),
        ({"SOPClassUID": STORAGE + "6.2", "Modality": "US"}, "sop-class-ultrasound"),
        ({"SOPClassUID": "1.2.3"}, "sop-class-other"),
    ],
)
def test_only_originals_of_listed_classes_pass_by_themselves(changes, wanted):
    assert outcome(image(**changes)) == wanted


def test_a_person_waives_one_reason_and_no_other():
    ds = image(
        SOPClassUID=STORAGE + "6.1",
        Modality="US",
        ImageType=["ORIGINAL", "PRIMARY"],
        BurnedInAnnotation="YES",
    )
    looked = Decision(waive=("review-ultrasound",))
    assert outcome(ds, decision=looked) == "review-burned-in"
    assert outcome(ds, decision=Decision(waive=("review-ultrasound", "review-burned-in"))) == "passes"


def test_no_decision_lets_in_what_is_no_image_or_a_head():
    everything = Decision(waive=("sop-class-report", "head-ct", "review-derived"))
    assert outcome(image(SOPClassUID=STORAGE + "88.11"), decision=everything) == "sop-class-report"
    assert outcome(image(**{**CT, "BodyPartExamined": "HEAD"}), decision=everything) == "head-ct"


def scanner(**changes: object) -> DeidSettings:
    fields = {
        "modality": "US",
        "manufacturer": "Aster Imaging",
        "model": "DR-1",
        "rows": 96,
        "cols": 96,
        "boxes": ((0, 0, 10, 96),),
    }
    return DeidSettings(regions=(Region(**{**fields, **changes}),))


def test_a_scanner_with_fixed_regions_passes_and_its_neighbours_wait():
    ds = image(SOPClassUID=STORAGE + "6.1", Modality="US")
    assert outcome(ds, scanner()) == "passes"
    for other in ({"rows": 97}, {"model": "DR-2"}, {"manufacturer": "Aster"}, {"modality": "OT"}):
        assert outcome(ds, scanner(**other)) == "review-ultrasound"


def test_a_head_ct_of_a_named_scanner_is_refused_all_the_same():
    """Fixed regions say where its text stands, not that it shows no face."""
    named = scanner(modality="CT")
    assert outcome(image(**CT, ImageType=["DERIVED", "SECONDARY"]), named) == "passes"
    assert outcome(image(**{**CT, "BodyPartExamined": "HEAD"}, ImageType=AXIAL), named) == "head-ct"


def test_regions_are_blanked_in_every_frame_and_an_unnamed_scanner_has_none():
    ds = image(Modality="US")
    region = region_of(ds, scanner())
    assert region is not None
    assert [tuple(box) for box in boxes_of(region, 2)] == [(0, 0, 0, 10, 96), (1, 0, 0, 10, 96)]
    del ds.ManufacturerModelName
    assert region_of(ds, scanner(model="")) is None


def test_a_site_may_let_derived_radiographs_pass_but_not_derived_secondary_ones():
    settings = DeidSettings(derived_primary=("CR",))
    assert outcome(image(ImageType=["DERIVED", "PRIMARY"]), settings) == "passes"
    assert outcome(image(ImageType=["DERIVED", "SECONDARY"]), settings) == "review-derived"
    assert outcome(image(**{**CT, "ImageType": ["DERIVED", "PRIMARY"]}), settings) == "review-derived"


@pytest.mark.parametrize(
    "said",
    [
        {"BodyPartExamined": "HEAD"},
        {"BodyPartExamined": "HEAD NECK"},
        {"BodyPartExamined": "WHOLE BODY"},
        {"StudyDescription": "CT BRAIN w/o contrast"},
        {"SeriesDescription": "Schädel nativ"},
        {"ProtocolName": "1A TRAUMA/PLAIN HEAD DM /Head"},
        {"StudyDescription": "TDM crâne"},
        {"StudyDescription": "TC de cabeza"},
        {"StudyDescription": "TC encefalo"},
        {"StudyDescription": "КТ головы"},
        {"StudyDescription": "頭部CT"},
        {"StudyDescription": "TK GŁOWY"},
        {"SeriesDescription": "sinuses_coronal"},
    ],
)
def test_a_head_is_known_by_any_sign_in_any_of_these_languages(said):
    ds = image(**{**CT, "ImageType": AXIAL, **said})
    assert shows_head(ds)
    assert outcome(ds) == "head-ct"
    assert outcome(ds, DeidSettings(head_ct="accept")) == "passes"


@pytest.mark.parametrize(
    "text", ["Head First Supine", "femoral head left", "AHEAD study", "THORAX", "overhead arms", "capsule"]
)
def test_words_that_only_sound_like_a_head_are_none(text):
    assert not shows_head(image(BodyPartExamined="CHEST", StudyDescription=text))


def test_an_mr_of_a_head_is_no_head_ct():
    mr = image(
        SOPClassUID=STORAGE + "4", Modality="MR", BodyPartExamined="HEAD", ImageType=["ORIGINAL", "PRIMARY"]
    )
    assert outcome(mr) == "passes"
