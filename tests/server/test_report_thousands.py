"""A report of hundreds of hospitals that each have figures: what is drawn, what it costs, and that nothing is lost."""

from __future__ import annotations

import gc
import re
import sys
from dataclasses import replace
from types import FrameType
from urllib.parse import unquote

import pytest

from common.messages import ModelMetrics
from server.records import RunRecord
from server.reports import select, tables
from server.reports.chance import chance_band, stratified_error
from server.reports.consortium import report_html
from server.reports.crowds import BEST, EVERYBODY, WORST, crowd
from server.reports.statistics import group_rows
from tests.server.report_records import realistic


def many(times: int) -> RunRecord:
    """Six hospitals so many times over, each copy a little better than the one before."""
    record = realistic(3)

    def copied(name: str, copy: int) -> str:
        return f"{name}-{copy:03d}"

    def grown(table):
        return {copied(name, n): value for n in range(times) for name, value in table.items()}

    def better(site, by: float):
        models = tuple(
            replace(m, groups=tuple(replace(g, auroc=raised(g.auroc, by)) for g in m.groups))
            for m in site.models
        )
        return replace(site, models=models)

    def raised(e, by: float):
        return e and replace(
            e, value=e.value + (1 - e.value) * by, high=max(e.high, e.value + (1 - e.value) * by)
        )

    arms = {
        name: replace(
            arm,
            sites={
                copied(s, n): better(v, n / times / 5) for n in range(times) for s, v in arm.sites.items()
            },
        )
        for name, arm in record.arms.items()
    }
    return replace(record, arms=arms, comparisons=grown(record.comparisons), intake=grown(record.intake))


def work(record: RunRecord) -> int:
    """Python functions that are called while a report is made: work, whatever the machine is doing besides."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    report_html(realistic(1))  # imports, fonts and templates are not counted
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        report_html(record)
    finally:
        sys.setprofile(before)
    return calls


def test_what_is_read_of_a_record_is_read_once_and_forgotten_with_it():
    read: list[str] = []

    @select.once
    def name(record: RunRecord) -> str:
        read.append(record.run)
        return record.run

    first, second = realistic(1), replace(realistic(1), run="another")
    assert [name(first), name(second), name(first), name(second)] == [first.run, "another"] * 2
    assert read == [first.run, "another"]
    del first
    gc.collect()
    assert name(realistic(1)) == realistic(1).run
    assert len(read) == 3


def test_four_times_the_hospitals_are_not_sixteen_times_the_work():
    """A page of 1,000 hospitals once took 45 seconds, because the whole record was read anew for each line."""
    few, lots = work(many(10)), work(many(40))
    assert lots < 6 * few


def test_of_many_hospitals_the_worst_and_best_served_are_shown_and_all_can_be_downloaded():
    record = many(8)
    by_site = select.all_series(record)[select.main_series(record) or ""]
    figures = {site: group.auroc.value for site, m in by_site.items() if (group := m.groups[0]).auroc}
    ordered = sorted(figures, key=lambda site: (figures[site], site))
    shown, hidden = {*ordered[:WORST], *ordered[-BEST:]}, set(ordered[WORST:-BEST])
    assert hidden
    assert crowd(record).names == shown
    assert crowd(record).others == len(hidden)
    html = re.sub(r'href="data:[^"]*"', "", report_html(record))
    assert html.count(f"the {len(hidden)} between them are in the download") >= 6
    weak = {row.name for row in group_rows(record) if row.weak}
    assert all(name in html for name in shown)
    assert not [name for name in hidden - weak if name in html]
    for table in (tables.arms(record), tables.gaps(record), tables.threshold(record, "federated")):
        names = {row[0].text for row in table.rows}
        assert names & hidden == set()
        assert all(name in unquote(table.csv or "") for name in (*shown, *hidden))


def test_where_nothing_was_released_nobody_is_told_that_no_weak_spot_was_found():
    """A green box over held-back figures would be a comfort that nobody has earned."""
    record = realistic(3)
    arms = {
        name: replace(
            arm,
            sites={s: replace(v, models=tuple(silent(m) for m in v.models)) for s, v in arm.sites.items()},
        )
        for name, arm in record.arms.items()
    }
    html = report_html(replace(record, arms=arms, comparisons={}))
    assert "No weak spot found" not in html
    assert "Nothing could be judged" in html
    assert "a weak spot may be there unseen" in html
    assert "it takes 11 test patients with the finding and 11 without" in html
    assert "Nothing could be judged" not in report_html(record)


def silent(model: ModelMetrics) -> ModelMetrics:
    """The same with every AUROC held back."""
    return replace(model, groups=tuple(replace(g, auroc=None, positives=None) for g in model.groups))


def test_of_a_few_everybody_is_shown():
    assert crowd(realistic(3)) is EVERYBODY


def test_the_band_of_each_group_is_what_the_formula_says_of_the_others():
    """Worked out group by group and stratum by stratum, as the module's text has it."""
    aurocs, counts = [0.80, 0.86, 0.91], [[(20, 40)], [(15, 30), (25, 25)], [(0, 12), (30, 60)]]
    for index, band in enumerate(chance_band(aurocs, counts)):
        others = [i for i in range(3) if i != index]
        centre = sum(aurocs[i] for i in others) / 2
        for _ in range(2):
            weights = [1 / stratified_error(centre, counts[i]) ** 2 for i in others]
            centre = sum(w * aurocs[i] for w, i in zip(weights, others, strict=True)) / sum(weights)
        assert band is not None
        assert band.centre == pytest.approx(centre, rel=1e-12)
        assert band.low < centre < band.high
