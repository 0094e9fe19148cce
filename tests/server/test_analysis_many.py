"""An analysis of very many hospitals: those that were planted are named, and the page can still be read."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from server.analytics import crowd
from server.analytics.page import page
from server.analytics.trouble import looks_made, predicted
from tests.server.test_analysis import drawn, part, record, usual

HOSPITALS = 120
ILL = {f"hospital-{number:03d}" for number in (4, 38, 89)}
DARK = {f"hospital-{number:03d}" for number in (6, 75)}


@pytest.fixture(scope="module")
def many():
    """A hundred and twenty hospitals of one population but for five."""
    rng, share = np.random.default_rng(3), usual(1)
    dark = {**share, "exposure": np.roll(share["exposure"], 2)}
    names = [f"hospital-{number + 1:03d}" for number in range(HOSPITALS)]
    return record(
        [
            part(
                drawn(
                    rng,
                    int(rng.integers(150, 600)),
                    0.6 if name in ILL else 0.35,
                    dark if name in DARK else share,
                ),
                name,
            )
            for name in names
        ]
    )


def test_of_a_hundred_and_twenty_the_planted_ones_are_named_and_nobody_else(many):
    found = {(one.kind, one.where) for one in predicted(many) if one.kind not in {"absent", "held"}}
    assert found == {("label-shift", name) for name in ILL} | {("look", name) for name in DARK}
    assert looks_made(many) > 1000


def test_the_page_of_so_many_draws_each_once_and_a_few_by_name(many):
    text = page(many)
    assert len(text) < 4_000_000
    outside = int(re.search(r"Funnel plot of 120 hospitals: (\d+) lie outside", text)[1])
    assert 3 <= outside <= 5, "the planted ones; two of a thousand others by chance"
    attributes = text.partition("All attributes</h2>")[2].partition("Methods and limits")[0]
    for figure in attributes.split("<figure")[1:]:
        assert figure.count("patients shown</text>") <= crowd.MANY
    assert "The 16 furthest from the others of 120" in attributes
    for name in ILL:
        assert re.search(f"{name} \\d+%</text>", text), "named beside the funnel"
    assert "How far each hospital is from the others</caption>" not in text, "no table of 120 columns"
    assert text.partition("Methods and limits</h2>")[2].count("hospital-") == 0, (
        "no list of 120 names in a sentence"
    )
    for name in (one.name for one in many.parts):
        assert name in text, "the downloads have everybody"


def test_limits_of_a_funnel_by_hand():
    inside, beyond = ("a", 0.59, 100), ("b", 0.61, 100)
    assert not crowd.outside(inside, 0.5, 2.0)
    assert crowd.outside(beyond, 0.5, 2.0)


def test_the_furthest_are_those_beyond_chance_and_who_says_nothing_is_left_out():
    found = crowd.order_of({"a": (0.1, 0.2), "b": (0.3, 0.1), "c": (math.nan, math.nan), "d": (0.3, 0.25)})
    assert found == ["b", "d", "a"]
