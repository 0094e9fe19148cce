"""Makers and models: what is listed is written as listed, and nothing else as it stood."""

import re
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from client.deid.deidentify import Deidentifier
from client.deid.makers import CODED, built_in, maker_written, model_written
from client.deid.profile import built_in as profile
from client.deid.profile import load
from client.deid.pseudonyms import Pseudonyms
from client.deid.settings import DeidSettings, OwnMaker
from client.deid.tighten import effective
from client.deid.verify import Wanted
from common.errors import SettingsError
from tests.client.intake_files import chest, image

NAMES = Pseudonyms(b"k" * 32, b"s" * 32)
MAKERS = built_in()
NONE = DeidSettings()
OWN = DeidSettings(makers=(OwnMaker("Aster Imaging", ("DR-1",)), OwnMaker("SIEMENS", ("Kowalski 9",))))


def kept_of(settings: DeidSettings = NONE, **attributes: object) -> Dataset:
    source = image(1, **attributes)
    deidentifier = Deidentifier(effective(settings), NAMES)
    return deidentifier.apply(source, chest(1), wanted=Wanted())


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("SIEMENS", "Siemens"),
        ("Siemens Healthineers AG", "Siemens"),
        ("siemens_healthineers", "Siemens"),
        ("GE MEDICAL SYSTEMS", "GE"),
        ("G.E. Medical Systems", "GE"),
        ("General Electric Healthcare", "GE"),
        ("Philips Medical Systems, Inc.", "Philips"),
        ("TOSHIBA_MEC", "Toshiba"),
        ("FUJI PHOTO FILM Co., ltd.", "Fujifilm"),
        ("Konica Minolta, Inc.", "Konica Minolta"),
        ("UIH", "United Imaging"),
        ("Agfa-Gevaert AG", "Agfa"),
    ],
)
def test_a_listed_maker_is_written_in_one_spelling(said, name):
    assert maker_written(MAKERS, NAMES, said) == name


@pytest.mark.parametrize(
    ("maker", "model"),
    [
        ("SIEMENS", "SOMATOM Definition AS+"),
        ("SIEMENS", "Prisma_fit"),
        ("GE MEDICAL SYSTEMS", "LightSpeed16"),
        ("GE MEDICAL SYSTEMS", "DISCOVERY MR750"),
        ("Philips", "CX50"),
        ("Philips Healthcare", "Ingenia 1.5T"),
        ("TOSHIBA", "Aquilion ONE"),
        ("UIH", "uMR 770"),
    ],
)
def test_a_model_of_a_listed_family_is_kept_as_it_stands(maker, model):
    assert model_written(MAKERS, NAMES, maker, model) == model


@pytest.mark.parametrize(
    "said",
    ["Kowalski", "SIEMENS Kowalski", "Kowalski Siemens", "Siemens^Otto", "GE Otto Medical", "", "Siemen"],
)
def test_a_maker_on_no_list_becomes_a_code_whatever_stands_around_it(said):
    written = maker_written(MAKERS, NAMES, said)
    assert CODED.fullmatch(written)
    assert "kowalski" not in written.casefold()


@pytest.mark.parametrize(
    ("maker", "model"),
    [
        ("SIEMENS", "Kowalski"),
        ("SIEMENS", "Prisma Kowalski"),
        ("SIEMENS", "Kowalski Prisma"),
        ("SIEMENS", "Prisma 19550417"),
        ("SIEMENS", "Prisma 55501"),
        ("SIEMENS", "LightSpeed VCT"),
        ("Kowalski", "Prisma"),
        ("", "Prisma"),
    ],
)
def test_a_model_of_another_form_or_of_another_maker_becomes_a_code(maker, model):
    assert CODED.fullmatch(model_written(MAKERS, NAMES, maker, model))


def test_a_code_is_the_same_for_one_name_and_another_for_another_and_under_another_key():
    def code(said: str, names: Pseudonyms = NAMES) -> str:
        return maker_written(MAKERS, names, said)

    assert code("Aster Imaging") == code("ASTER  IMAGING") == code("aster-imaging")
    assert code("Aster Imaging") != code("Borealis")
    assert code("Aster Imaging") != code("Aster Imaging", Pseudonyms(b"x" * 32, b"s" * 32))
    assert model_written(MAKERS, NAMES, "Aster", "E-1") != model_written(MAKERS, NAMES, "Borealis", "E-1")


def test_a_hospital_names_its_own_machines_and_nothing_else_is_loosened():
    target = kept_of(OWN)
    assert (target.Manufacturer, target.ManufacturerModelName) == ("Aster Imaging", "DR-1")
    other = kept_of(OWN, Manufacturer="ASTER-IMAGING", ManufacturerModelName="DR-2")
    assert other.Manufacturer == "Aster Imaging"
    assert CODED.fullmatch(other.ManufacturerModelName)
    known = kept_of(OWN, Manufacturer="Siemens Healthineers", ManufacturerModelName="KOWALSKI 9")
    assert (known.Manufacturer, known.ManufacturerModelName) == ("Siemens", "Kowalski 9")
    assert (
        kept_of(OWN, Manufacturer="Siemens", ManufacturerModelName="Avanto").ManufacturerModelName == "Avanto"
    )


def test_without_its_own_list_the_same_machine_is_two_codes():
    target = kept_of()
    assert re.fullmatch("maker-[0-9a-f]{8}", target.Manufacturer)
    assert re.fullmatch("model-[0-9a-f]{8}", target.ManufacturerModelName)
    assert target.DeviceSerialNumber == kept_of(OWN).DeviceSerialNumber  # the scanner is the same one


def test_two_values_are_no_known_maker():
    target = kept_of(Manufacturer=["SIEMENS", "Kowalski"], ManufacturerModelName=["Prisma", "Kowalski"])
    assert CODED.fullmatch(target.Manufacturer)
    assert CODED.fullmatch(target.ManufacturerModelName)


def test_the_listed_spelling_is_held_against_the_patients_name_too():
    source = image(1, Manufacturer="G.E. Medical Systems", ManufacturerModelName="LOGIQ 700")
    deidentifier = Deidentifier(profile(), NAMES)
    target = deidentifier.apply(source, chest(1), wanted=Wanted(words=frozenset(("ge",))))
    assert "Manufacturer" not in target


def test_the_digest_of_the_profile_covers_both_lists():
    assert effective(OWN).digest != effective(DeidSettings()).digest == profile().digest
    assert replace(MAKERS, digest="") != MAKERS


def test_a_makers_name_that_a_hospital_may_list_has_the_profiles_form():
    for name in ("Müller", "", "A" * 65, "<b>"):
        with pytest.raises(ValueError, match="pattern"):
            OwnMaker(name)


def test_a_row_that_is_listed_as_anything_else_is_no_profile():
    row = (
        '[[attribute]]\nkeyword = "Manufacturer"\nvr = ["LO"]\naction = "keep"\npattern = "A"\nreason = "r"\n'
    )
    with pytest.raises(SettingsError, match="listed"):
        load(row + 'listed = "person"\n')
