"""A candidate read whole: what readings agree on, and what they may not be taken for."""

import pytest

from client.deid.settings import DeidSettings
from client.deid.text.clean import clean
from client.deid.text.found import TextReview
from client.deid.text.line import agreed, distance, doubtful, resembles
from simulations.text_corpus import marker_cases
from tests.client.test_text_clean import header
from tests.client.text_pictures import covered, ground, write


def test_letters_to_change_are_counted_as_levenshtein_does():
    pairs = (("kitten", "sitting"), ("", "lat"), ("lat", ""), ("at", "lat"), ("same", "same"))
    assert [distance(*pair) for pair in pairs] == [3, 3, 3, 1, 0]


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ([("LAT", 0.99), ("LAT", 0.97)], "lat"),
        ([("AR", 0.68), ("AP", 0.89), ("AB", 0.74), ("AP", 0.99), ("AF", 0.85)], "ap"),
        ([("SUPIN", 0.91), ("SUPINE", 0.97), ("SUPIME", 0.93)], "supine"),
    ],
)
def test_a_marker_is_one_when_two_readings_say_so_and_none_says_another_word_as_surely(said, text):
    found = agreed(said)
    assert found is not None
    assert (found.text, found.marker) == (text, True)


@pytest.mark.parametrize(
    "said",
    [
        [("LAT", 0.99)],
        [("LAT", 0.99), ("LAT", 0.7)],
        [("LAT", 0.9), ("LAT", 0.9), ("PAT", 0.95)],
        [("LAT", 0.9), ("LAT", 0.9), ("DOE", 0.85), ("DOE", 0.85)],
        [("MOBILE", 0.95), ("NOBILE", 0.9), ("NOBILE", 0.9)],
        [("KOWALSKI", 0.9), ("KOWALSKA", 0.9)],
        [("JD", 0.99), ("JD", 0.99)],
        [("--", 0.99), ("--", 0.99)],
        [],
    ],
)
def test_readings_that_disagree_or_are_too_short_settle_nothing(said):
    assert agreed(said) is None


def test_a_word_is_one_when_two_readings_agree():
    found = agreed([("KOWALSKI", 0.9), ("Kowalski", 0.85), ("K", 0.3)])
    assert found is not None
    assert (found.text, found.marker) == ("kowalski", False)


def test_letters_that_make_no_word_are_for_a_person_unless_they_may_be_a_marker():
    found = doubtful([("RCHETTL", 0.71), ("H", 0.35), ("ROHETI", 0.77)])
    assert found is not None
    assert not found.sure
    assert doubtful([("RCHETTL", 0.71), ("ROH", 0.77)]) is None
    assert doubtful([("SOPINE", 0.9), ("SUPINE", 0.8), ("SOPINE", 0.9)]) is None
    assert doubtful([("3393", 0.3), ("J330", 0.2)]) is None


@pytest.mark.parametrize(("text", "marker"), [("AT", "lat"), ("JPINE", "supine"), ("CAT", "lat"), ("", "l")])
def test_what_misses_half_the_letters_at_most_can_be_a_misread_marker(text, marker):
    assert resembles(text, marker)


@pytest.mark.parametrize(
    ("text", "marker"), [("DOE", "lat"), ("KOWALSKI", "supine"), ("LAT KOWALSKI", "lat")]
)
def test_another_word_in_the_same_place_is_no_misread_marker(text, marker):
    assert not resembles(text, marker)


@pytest.mark.parametrize("number", [20, 28, 46])
def test_markers_of_which_the_reader_lost_a_letter_stay(number):
    """Blanked before they were read whole: AT for LAT, AF for AP, JPINE for SUPINE."""
    *_, case = marker_cases(number + 1, 2)
    cleaned = clean(case.pixels, header(), DeidSettings())
    assert cleaned.blanked == ()
    assert {hit.kind for hit in cleaned.hits} <= {"marker"}


@pytest.mark.parametrize("name", ["PAT", "LAX", "APEL", "SUPINSKI", "CAT"])
def test_a_name_that_looks_like_a_marker_does_not_stay(name):
    pixels, box = write(ground(), text=name, at=(6, 6), height=16)
    try:
        cleaned = clean(pixels, header(), DeidSettings())
    except TextReview:
        return
    assert covered(box, cleaned.blanked) > 0.9
