"""The method codes an image carries are those of what was done to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from client.deid.methods import MEANINGS, flags, methods
from client.deid.profile import built_in
from client.deid.settings import DeidSettings
from client.deid.tighten import effective

PLAIN = {"blanked": False, "searched": True, "defaced": False}


def row(keyword: str) -> str:
    return f'[[attribute]]\nkeyword = "{keyword}"\naction = "remove"\n'


def test_by_default_dates_and_characteristics_are_claimed():
    assert methods(DeidSettings(), **PLAIN) == ("113100", "113107", "113108")


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({"longitudinal_dates": False}, "113107"),
        ({"patient_characteristics": False}, "113108"),
    ],
)
def test_an_option_that_is_off_is_not_claimed(change, gone):
    settings = DeidSettings(**change)
    assert gone not in methods(settings, **PLAIN)
    assert gone not in methods(settings, **PLAIN, profile=effective(settings))


def test_pixels_count_as_cleaned_only_when_searched_and_blanked():
    done = {
        (blanked, searched): "113101"
        in methods(DeidSettings(), blanked=blanked, searched=searched, defaced=False)
        for blanked in (True, False)
        for searched in (True, False)
    }
    assert done == {(True, True): True, (True, False): False, (False, True): False, (False, False): False}


def test_a_face_is_claimed_only_when_it_was_removed():
    assert "113102" in methods(DeidSettings(), blanked=False, searched=True, defaced=True)
    assert "113102" not in methods(DeidSettings(deface_head_mr=True), **PLAIN)


def test_private_elements_are_claimed_when_some_are_kept():
    settings = DeidSettings(private_creators=("SIEMENS MR HEADER",))
    assert "113111" in methods(settings, **PLAIN, profile=effective(settings))
    assert "113111" not in methods(DeidSettings(), **PLAIN)


def test_a_stricter_profile_that_left_nothing_of_an_option_claims_it_no_longer():
    profile = effective(DeidSettings(), row("PatientSex") + row("PatientAge") + row("StudyDate"))
    assert methods(DeidSettings(), **PLAIN, profile=profile) == ("113100", "113107")


def test_device_identity_is_never_claimed_and_every_code_has_its_meaning():
    everything = DeidSettings(private_creators=("SIEMENS MR HEADER",))
    codes = methods(everything, blanked=True, searched=True, defaced=True)
    assert codes == tuple(MEANINGS)
    assert "113109" not in codes


def test_the_flags_beside_the_codes_follow_them():
    assert flags(("113100",)) == {"LongitudinalTemporalInformationModified": "REMOVED"}
    everything = flags(tuple(MEANINGS))
    assert everything["LongitudinalTemporalInformationModified"] == "MODIFIED"
    assert everything["RecognizableVisualFeatures"] == "NO"
    assert everything["BurnedInAnnotation"] == "NO"


def test_a_release_without_an_option_claims_nothing_of_it():
    bare = replace(built_in(), rules={k: r for k, r in built_in().rules.items() if not r.option})
    assert methods(DeidSettings(), **PLAIN, profile=bare) == ("113100",)
