"""The listed markers, and what only resembles one."""

import pytest

from client.deid.text.markers import is_marker


@pytest.mark.parametrize(
    "text",
    [
        "R",
        "l",
        "A-P",
        "PA.",
        "SEMI-ERECT",
        "Portable AP",
        "5UPINE",
        "SUPIN",
        "UPRIGH",
        "LEFT LAT",
        "DECUBITUS",
    ],
)
def test_markers_of_side_and_position_are_known_however_they_are_set_or_cut(text):
    assert is_marker(text)


@pytest.mark.parametrize(
    "text",
    [
        "JD",
        "R JD",
        "DOE",
        "AP 12:30",
        "PORTER",
        "LEFTON",
        "ERECTUS",
        "",
        "--",
        "1955-04-17",
        "PAUL",
        "LATIMER",
    ],
)
def test_initials_names_and_times_are_none_even_beside_a_marker(text):
    assert not is_marker(text)
