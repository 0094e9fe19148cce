"""The quick search in binary finds what the plain one finds, wherever it lies and however it is written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.deid import needles
from client.deid.needles import Needles
from client.deid.writings import as_bytes

NAMES = ("abendroth0", "wilhelmina", "7700000", "hosp-7700000", "1.2.276.0.7230010.3.1")
PLAIN, WIDE, FOREIGN = as_bytes([*NAMES, "müller-lüdenscheidt", "山田太郎", "παπαδόπουλος"], 6)
ALL = Needles(tuple(PLAIN), tuple(WIDE), tuple(FOREIGN))


def plainly(value: bytes) -> bool:
    low = value.lower()
    return any(one in low for group in (PLAIN, WIDE, FOREIGN) for one in group)


def ct(seed: int, count: int = 40_000) -> np.ndarray:
    """Soft tissue around 40 HU: values that are letters when read as text of two bytes each."""
    return np.random.default_rng(seed).normal(60, 30, count).astype("<i2")


@pytest.mark.parametrize("needle", sorted(PLAIN | WIDE | FOREIGN))
@pytest.mark.parametrize("at", [0, 1, 40_000, 40_001, 79_999])
def test_every_form_is_found_at_either_alignment_and_at_both_ends(needle, at):
    raw = ct(1).tobytes()
    assert not ALL.are_in(raw)
    at = min(at, len(raw) - len(needle))
    assert ALL.are_in(raw[:at] + needle + raw[at + len(needle) :])


@pytest.mark.parametrize("form", [str.upper, str.title, str.swapcase])
def test_the_case_of_letters_does_not_matter(form):
    raw = ct(2).tobytes()
    for text in ("abendroth0", "wilhelmina"):
        for written in (form(text).encode(), form(text).encode("utf-16-le"), form(text).encode("utf-16-be")):
            assert ALL.are_in(raw[:501] + written + raw[501:])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 9999), st.integers(0, 65_000), st.booleans(), st.integers(0, 2**14), st.data())
def test_it_agrees_with_plain_search_on_any_pixels(seed, at, full, top, data):
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 2**16 if full else top + 1, 33_000).astype("<u2").tobytes()
    needle = data.draw(st.sampled_from(sorted(PLAIN | WIDE | FOREIGN)))
    cut = data.draw(st.integers(1, len(needle)))
    mixed = raw[:at] + needle[:cut] + raw[at + cut :]
    assert ALL.are_in(mixed) == plainly(mixed)


def test_a_string_over_the_edge_of_two_blocks_is_found():
    raw = bytes(3 * needles._BLOCK)
    for at in (needles._BLOCK - 5, needles._BLOCK - 1, 2 * needles._BLOCK - 20):
        assert ALL.are_in(raw[:at] + b"WILHELMINA" + raw[at + 10 :])


def test_an_image_of_one_letter_everywhere_is_no_hit_and_costs_no_time():
    raw = b"ab" * 2**19
    assert not ALL.are_in(raw)
    assert ALL.are_in(raw[:-10] + b"wilhelmina")
