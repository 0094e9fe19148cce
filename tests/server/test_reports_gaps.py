"""The picture of gaps: who is red, what chance gives, and nothing of a group that is held back."""

from __future__ import annotations

import csv
import html
import io
import re
from dataclasses import replace
from urllib.parse import unquote

import numpy as np
import pytest

from common.statistics import Settings, gaps
from server.reports.gaps import gap_figure
from tests.common.statistics.test_gaps import cohort

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def found():
    sample = cohort(1, 600)
    owner = np.asarray(sample.patients)
    truth = sample.truth
    few = np.isin(owner, [*np.unique(owner[truth])[:6], *np.unique(owner[~truth])[:60]])
    ward = np.where(owner >= 595, HOSTILE, np.where(few, "Corner", "Main"))
    sample = replace(sample, attributes={**sample.attributes, "ward": ward})
    settings = Settings(metrics=("auroc", "brier"), permutations=999, resamples=50)
    families = (("site",), ("manufacturer",), ("ward",))
    return gaps(sample, families, np.random.default_rng(1), settings)


def rows(figure):
    text = unquote(figure.csv.partition(",")[2])
    return {row["group"]: row for row in csv.DictReader(io.StringIO(text))}


def test_the_weak_scanner_is_red_and_only_it(found):
    figure = gap_figure(found)
    for drawing in (figure.wide, figure.narrow):
        red = re.findall(r'class="tw"[^>]*>([^<]*)<', drawing)
        assert red == ["▼ Boreal"]
    assert figure.wide.count('class="weakrow"') == 1


def test_what_is_drawn_is_what_was_found(found):
    listed = rows(gap_figure(found))
    for one in (g for g in found.gaps if g.metric == "auroc"):
        assert float(listed[one.level]["gap"]) == one.gap.value
        assert float(listed[one.level]["p_holm"]) == one.holm
        assert float(listed[one.level]["together_low"]) == one.together.low
    said = html.unescape(str(gap_figure(found).wide))
    assert "More than chance: " in said
    assert "Boreal" in said.partition("More than chance: ")[2][:80]


def test_a_group_on_too_little_has_a_figure_and_no_place(found):
    row = rows(gap_figure(found))["Corner"]
    assert row["why_not_judged"] == "fewer than 10 positives"
    assert row["gap"] == row["p"] == ""
    own = next(g for g in found.groups if g.level == "Corner").figures["auroc"].value
    assert f"{own:.2f} (" in gap_figure(found).wide


def test_a_group_that_is_held_back_shows_no_number(found):
    row = rows(gap_figure(found))[HOSTILE]
    assert row["why_not_judged"] == "too few patients to be shown"
    assert row["patients"] == row["value"] == ""


def test_a_name_cannot_write_into_the_page(found):
    figure = gap_figure(found, "brier")
    assert "<script" not in figure.wide
    assert "to the right" in figure.note


def test_without_intervals_the_gap_is_still_drawn():
    bare = Settings(metrics=("auroc",), permutations=199, resamples=0)
    figure = gap_figure(gaps(cohort(2), (("sex",),), np.random.default_rng(0), bare))
    assert not re.search(r"\bnan\b", figure.wide, re.IGNORECASE)
    assert figure.wide.count("<circle") == 2
