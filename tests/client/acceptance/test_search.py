"""The search itself: it finds what is there, in every coding, and nothing else."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from tests.client.acceptance.case import Canary
from tests.client.acceptance.corpus import CASES
from tests.client.acceptance.search import Finder, leaks

NOISE = np.random.default_rng(5).integers(0, 256, 100_000, dtype=np.uint8).tobytes()
WORD = Canary(7).word


@pytest.mark.parametrize(
    "hidden",
    [
        WORD.encode(),
        WORD.upper().encode("utf-16-le"),
        WORD.encode("utf-16-be"),
        WORD[::-1].encode(),
        WORD.encode().hex().upper().encode(),
        base64.b64encode(b"xy" + WORD.encode() + b"z"),
        base64.b64encode(WORD.encode()),
    ],
)
@pytest.mark.parametrize("at", [0, 777, len(NOISE)])
def test_a_canary_is_found_in_any_coding_at_any_place(hidden, at):
    assert leaks(NOISE[:at] + hidden + NOISE[at:], [WORD, Canary(200).word]) == [WORD]


def test_names_of_other_alphabets_are_found_in_their_own_coding():
    name = "Щербаковский"
    assert leaks(NOISE + name.encode("iso8859-5") + NOISE, [name]) == [name]


def test_noise_holds_no_canary():
    """Every canary of the corpus against bytes made by chance."""
    finder = Finder(text for number in range(len(CASES) + 1) for text in Canary(number).texts())
    assert finder.find(NOISE * 3) == []


def test_every_canary_stands_in_one_file_only():
    words = [text for number in range(1, len(CASES) + 1) for text in Canary(number).texts()[:7]]
    assert len(set(words)) == len(words)
