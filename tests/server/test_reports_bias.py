"""The bias chapter: from records only, an alarm for each alarm, a download for each figure, sources for what was done."""

from __future__ import annotations

import csv
import html
import io
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from common.errors import InputError
from common.messages import Comparison, Estimate
from common.statistics import Sample, Settings, gaps
from server.records import SimulationOnly, read_record, write_record
from server.reports import bias, compare, mends
from server.reports.bias_words import alarm_sentence
from server.reports.consortium import report_html, write_report
from tests.devtools import page as chromium_page
from tests.server.bias_records import MAKERS, biased
from tests.server.bias_records import bias as asked
from tests.server.report_records import PLAN, realistic


def chapter_of(text: str) -> str:
    """The chapter's own HTML."""
    return text[text.index('<section id="bias">') : text.index('<section id="arms">')]


def words_of(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


@pytest.fixture(scope="module")
def found() -> str:
    return chapter_of(report_html(biased()))


def test_a_run_that_was_not_asked_has_no_chapter():
    assert 'id="bias"' not in report_html(realistic())
    assert bias.chapter(realistic()) is None


def test_it_survives_the_disk(tmp_path: Path):
    write_record(biased(), tmp_path / "metrics.json")
    assert read_record(tmp_path / "metrics.json") == biased()


def test_every_alarm_is_said_and_nothing_else_is(found: str):
    record = biased()
    alarms = record.simulation_only.bias.alarms()
    assert len(alarms) == 5
    said = words_of(found[found.index('class="box') : found.index("How sure")])
    for probe in alarms:
        assert " ".join(alarm_sentence(probe).split()) in said
    assert "Dorado Imaging is served worse" in said
    quiet = report_html(biased(holm=0.2, weak=0.0))
    assert "No shortcut, and no group served worse than chance explains." in words_of(chapter_of(quiet))
    assert "box good verdict" in chapter_of(quiet)


@pytest.mark.parametrize(
    ("probes", "groups", "said"),
    [
        (True, False, "No shortcut. Whether a group is served worse nobody can tell from this run"),
        (False, True, "No group served worse than chance explains. No probe for shortcuts had an answer."),
        (False, False, "Nothing could be judged"),
    ],
)
def test_what_could_not_be_judged_is_no_good_news(probes, groups, said):
    record = biased(holm=0.2, weak=0.0)
    only = record.simulation_only
    few = replace(only.bias.findings, gaps=(), tests=0)
    kept = only.bias.probes if probes else tuple(p for p in only.bias.probes if not p.judged)
    less = replace(only.bias, probes=kept, findings=only.bias.findings if groups else few)
    chapter = chapter_of(report_html(replace(record, simulation_only=replace(only, bias=less))))
    box = words_of(chapter[chapter.index('class="box') : chapter.index("How sure")])
    assert said in box
    assert "box subset verdict" in chapter
    assert "box good" not in chapter


def test_a_gap_of_a_rate_alone_is_said_too_and_drawn():
    """One maker's scores are all higher: AUROC is the same for both, and more of its healthy are called ill."""
    rng = np.random.default_rng(1)
    truth = np.arange(600) % 2 == 0
    maker = rng.choice(MAKERS, 600)
    raw = rng.normal(size=600) + 2.0 * truth - 1.0 + 1.0 * (maker == MAKERS[1])
    sample = Sample(1 / (1 + np.exp(-raw)), truth, np.arange(600), {"manufacturer": maker})
    settings = Settings(metrics=("auroc", "sensitivity", "specificity"), permutations=999)
    shifted = gaps(sample, (("manufacturer",),), rng, settings)
    record = biased(holm=0.2, weak=0.0)
    only = record.simulation_only
    quiet = replace(record, simulation_only=replace(only, bias=replace(only.bias, findings=shifted)))
    chapter = chapter_of(report_html(quiet))
    said = words_of(chapter[chapter.index('class="box') : chapter.index("How sure")])
    assert (
        "Dorado Imaging is served worse than the others: at the one threshold more of its healthy are called ill"
        in said
    )
    assert (
        "Aster Imaging is served worse than the others: at the one threshold more of its ill are missed"
        in said
    )
    assert "No shortcut" not in said
    assert "Specificity: each group less all others of its kind" in words_of(chapter)


def test_what_is_only_described_never_stands_in_the_box(found: str):
    box = words_of(found[found.index('class="box') : found.index("How sure")])
    for word in ("balanced accuracy", "evidence", "read from"):
        assert word not in box


def test_flattered_and_harmed_are_told_apart():
    up, down = (p for p in asked().probes if p.probe == "swap")
    assert "flatters" in alarm_sentence(up)
    assert "worse than it is" in alarm_sentence(down)
    assert alarm_sentence(down).startswith("At cadiz: ")


def test_every_figure_and_table_has_its_numbers(found: str):
    charts = [f for f in re.findall(r"<figure.*?</figure>", found, re.DOTALL) if "<svg" in f]
    assert len(charts) == 7
    for chart in charts:
        assert "data:text/csv" in chart
    assert 'download="machines.csv"' in found
    assert 'download="remedies.csv"' in found


def test_downloads_hold_the_record_s_numbers(found: str):
    address = html.unescape(
        re.search(r'download="swap.csv" href="data:text/csv;charset=utf-8,([^"]+)"', found)[1]
    )
    rows = list(csv.DictReader(io.StringIO(unquote(address))))
    records = [p for p in asked().probes if p.probe == "swap"]
    assert [(float(r["value"]), float(r["low"]), r["alarm"]) for r in rows] == [
        (p.figure.value, p.figure.low, "yes") for p in records
    ]


def test_pictures_come_before_the_box_and_the_box_before_the_figures(found: str):
    assert found.index("<img") < found.index("What was found") < found.index("<svg")


def test_nothing_is_fetched_and_words_of_a_record_are_no_markup():
    hostile = '"><script>alert(1)</script>'
    record = biased()
    only = record.simulation_only
    probes = tuple(replace(p, where=hostile, source=hostile) for p in only.bias.probes)
    pictures = tuple(
        replace(p, title=hostile, tiles=tuple(replace(t, caption=hostile) for t in p.tiles))
        for p in only.bias.pictures
    )
    bad = replace(only.bias, probes=probes, pictures=pictures, omitted=(hostile,))
    text = report_html(replace(record, simulation_only=replace(only, bias=bad)))
    assert "<script" not in text
    assert not re.search(r'(?:src|href)="(?!data:|#|audit\.html)', chapter_of(text))
    assert "http" not in chapter_of(text)


def test_sources_are_cited_in_order_and_only_for_what_was_done(found: str):
    told = words_of(found[found.index("How it was done") :])
    listed = re.findall(r"<li>(.*?)</li>", found[found.index('class="sources"') :])
    cited = [int(number) for number in re.findall(r"\[(\d+)\]", told)]
    assert sorted(set(cited)) == list(range(1, len(listed) + 1))
    assert list(dict.fromkeys(cited)) == sorted(set(cited)), "numbered in the order of their first mention"
    assert any("McMahan" in source for source in listed)
    assert not any("Abadi" in source for source in listed), "the model of the chapter is not the private one"


def test_methods_follow_the_plan():
    record = biased()
    plan = PLAN + '[federation]\nstrategy = "fedprox"\nproximal_mu = 0.1\nrounds = 7\n'
    prox = words_of(chapter_of(report_html(replace(record, plan_toml=plan))))
    assert "7 rounds of FedProx" in prox
    assert "McMahan" not in prox
    harmonised = PLAN.replace("shape = [96, 96]", 'shape = [96, 96]\nnormalisation = "histogram"')
    assert "standard histogram" in words_of(chapter_of(report_html(replace(record, plan_toml=harmonised))))
    private = replace(record.simulation_only, bias=replace(asked(), model="federated-dp"))
    assert "Abadi" in words_of(chapter_of(report_html(replace(record, simulation_only=private))))
    bare = replace(record, plan_toml="")
    assert "How it was done" in report_html(bare)


def test_a_probe_that_was_not_asked_gives_no_source():
    few = replace(asked(), probes=tuple(p for p in asked().probes if p.probe == "decode"), findings=None)
    text = chapter_of(report_html(replace(biased(), simulation_only=SimulationOnly(bias=few))))
    assert "Selvaraju" not in text
    assert "Holm" not in text
    assert 'id="simulation"' not in report_html(replace(biased(), simulation_only=SimulationOnly(bias=few)))


def with_remedy(worst: float, best: float):
    """A record in which the personalised model changes the worst-served and the best-served hospital."""
    record = biased()
    low, high = mends.extremes(record, "federated")
    changes = {low.site: worst, high.site: best}
    comparisons = {
        site: (*listed, Comparison("personalised", "federated", "auroc", Estimate(c := changes.get(site, 0.0), c - 0.02, c + 0.02)))
        for site, listed in record.comparisons.items()
    }  # fmt: skip
    return replace(record, comparisons=comparisons), low, high


def test_what_mends_it_is_named_with_what_it_costs():
    record, low, high = with_remedy(0.2, -0.1)
    mended, price = mends.remedy(record, "federated")
    assert mended.startswith("Federated, personalised: ")
    assert low.site in mended
    assert "+0.200" in mended
    assert f"{high.site}, served best" in price
    assert "loses −0.100" in price
    assert mended in html.unescape(report_html(record))


def test_a_remedy_that_costs_nobody_comes_before_one_that_helps_more():
    record, _, high = with_remedy(0.3, -0.1)
    cheap = {
        site: (*listed, Comparison("pooled", "federated", "auroc", Estimate(c := 0.0 if site == high.site else 0.2, c - 0.02, c + 0.02)))
        for site, listed in record.comparisons.items()
    }  # fmt: skip
    mended, price = mends.remedy(replace(record, comparisons=cheap), "federated")
    assert mended.startswith("Pooled (only in a simulation)")
    assert "It also gains by: Federated, personalised (+0.300" in mended
    assert "no loss" in price


def test_a_remedy_without_a_price_says_that_none_was_seen():
    record, _, _ = with_remedy(0.2, 0.001)
    assert "no loss that this run can tell from chance" in mends.remedy(record, "federated")[1]


def test_what_is_within_chance_mends_nothing():
    record, low, _ = with_remedy(0.01, 0.0)
    kept = {site: tuple(c for c in listed if c.model == "personalised" and c.other == "federated") for site, listed in record.comparisons.items()}  # fmt: skip
    lone = {name: arm for name, arm in record.arms.items() if name == "federated"}
    mended, price = mends.remedy(replace(record, comparisons=kept, arms=lone), "federated")
    assert mended.startswith(f"Nothing in this run helps {low.site}")
    assert "no remedy" in price


def test_worst_and_best_are_the_ends_of_all_that_trained():
    record = realistic()
    record = replace(record, external=("bergen",))
    own = {s: m.models[0].groups[0].auroc for s, m in record.arms["federated"].sites.items() if s != "bergen"}
    told = {site: area.value for site, area in own.items() if area}
    assert len(told) > 2
    low, high = mends.extremes(record, "federated")
    assert (low.site, low.auroc.value) == min(told.items(), key=lambda one: one[1])
    assert (high.site, high.auroc.value) == max(told.items(), key=lambda one: one[1])


def test_one_hospital_has_no_worst():
    record = realistic()
    arms = {
        name: replace(arm, sites={"altona": arm.sites["altona"]}, federation=None)
        for name, arm in record.arms.items()
    }
    assert mends.extremes(replace(record, arms=arms), "federated") is None
    assert mends.table(replace(record, arms=arms), "federated") is None


def test_runs_are_compared_with_the_first(tmp_path: Path):
    one, two = biased(), replace(realistic(3), seed=8, plan_toml=PLAN + "[federation]\nrounds = 9\n")
    page = tmp_path / "comparison.html"
    found = compare.write_comparison([one, two], page)
    text = page.read_text()
    assert found.runs == ("fedavg, seed 7", "fedavg, seed 8")
    assert "different seeds" in words_of(text)
    assert "Nobody asked" in words_of(text)
    assert len(found.table.rows) == 2
    assert len(found.differences.rows) == 1
    assert found.table.rows[0][4].text == "5"
    assert found.table.rows[1][4].text == "not asked"
    for name in ("runs", "differences"):
        assert f'download="{name}.csv"' in text
    assert "http:" not in text
    assert "https:" not in text


def test_runs_of_other_hospitals_or_questions_are_said_to_be(tmp_path):
    other = replace(realistic(), question="Something else?")
    for second, title in ((other, "Runs with different questions"), (realistic(), realistic().question)):
        compare.write_comparison([realistic(), second], tmp_path / "page.html")
        assert f"<h1>{title}</h1>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "The runs answer different questions." in compare.compared([realistic(), other]).warnings
    arms = {
        name: replace(arm, sites={"x" + s: m for s, m in arm.sites.items()})
        for name, arm in realistic().arms.items()
    }
    moved = compare.compared([realistic(), replace(realistic(), arms=arms, run="other")])
    assert "The runs have different hospitals." in moved.warnings
    assert moved.differences.rows[0][1].text == "no such hospital"


def test_what_is_no_run_is_named(tmp_path: Path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "metrics.json").write_text("{}")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="not a record"):
        compare.record_of(tmp_path / "old")
    with pytest.raises(InputError, match="no run that ended"):
        compare.record_of(tmp_path / "none")
    with pytest.raises(InputError, match="two"):
        compare.records_of([tmp_path])


def test_in_a_browser_nothing_runs_over_the_edge_at_either_width(tmp_path: Path):
    write_report(biased(), tmp_path / "report.html")
    compare.write_comparison([biased(), realistic(3)], tmp_path / "comparison.html")
    with chromium_page(tmp_path / "profile") as tab:
        for name in ("report.html", "comparison.html"):
            for width in (390, 1200):
                tab.size(width, 900)
                tab.go((tmp_path / name).as_uri())
                tab.until("document.readyState === 'complete' && document.querySelector('footer') !== null")
                assert tab.run("document.documentElement.scrollWidth <= innerWidth"), (name, width)
        tab.go((tmp_path / "report.html").as_uri())
        tab.until("document.readyState === 'complete' && document.querySelector('#bias') !== null")
        assert tab.run(
            "[...document.querySelectorAll('#bias img')].every(i => i.complete && i.naturalWidth > 0)"
        )


def test_a_report_with_pictures_does_not_say_that_it_has_none():
    """Its first line is what a data-protection officer reads."""
    claim = "no image and no patient is in this file"
    shown = report_html(biased())
    assert "data:image/png" in shown
    assert claim not in shown
    assert "what no hospital would release" in shown
    assert claim in report_html(replace(biased(), simulation_only=None))
