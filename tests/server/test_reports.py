"""The consortium's report: from records only, harm first, nothing fetched, nothing unescaped."""

from __future__ import annotations

import html
import re
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import unquote

import pytest

from common.errors import StorageError
from common.messages import Comparison, Estimate
from server.records import RunRecord
from server.reports import select, words
from server.reports.chance import mean
from server.reports.consortium import report_html, write_report
from server.reports.reasons import meaning
from server.reports.statistics import group_rows
from simulations.faults.wrong import CASES
from tests.server.report_records import only, realistic, with_external

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def page() -> str:
    return report_html(realistic())


def visible(page: str) -> str:
    """What a reader sees: no style, no axis, no attribute."""
    page = re.sub(r"<style>.*?</style>|<title>.*?</title>", " ", page, flags=re.DOTALL)
    page = re.sub(r'<text [^>]*class="tick"[^>]*>.*?</text>', " ", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", page))


def numbers_of(value: object) -> set[float]:
    """Every number anywhere in a record, and every number in its texts."""
    if isinstance(value, dict):
        return set().union(*(numbers_of(v) | numbers_of(k) for k, v in value.items()), set())
    if isinstance(value, list | tuple):
        return {float(len(value))}.union(*(numbers_of(v) for v in value), set())
    if isinstance(value, bool) or value is None:
        return set()
    if isinstance(value, int | float):
        return {float(value)}
    return {float(n) for n in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", str(value))}


def derived_numbers(record: RunRecord) -> set[float]:
    """What follows from the record by the rules on the page, computed anew here."""
    found: set[float] = set()
    for series, by_site in select.all_series(record).items():
        areas = [g.auroc for m in by_site.values() for g in m.groups if g.group == "all" and g.auroc]
        found |= numbers_of(asdict(mean(areas))) if areas else set()
        totals = [g.positives + g.negatives for m in by_site.values() for g in m.groups if g.positives]
        sites = [g.positives + g.negatives for m in by_site.values() for g in m.groups if g.group == "all"]
        found |= {float(n) for n in (*totals, sum(sites))}
        bins = [b.patients for m in by_site.values() for b in m.groups[0].calibration]
        found.add(float(sum(bins)))
        for row in group_rows(record, series):
            found |= numbers_of(asdict(row)) | {float(row.patients)}
        for other in select.all_series(record):
            gap = words.mean_gap(record, series, other)
            found |= numbers_of(asdict(gap.change)) if gap else set()
            for site in select.sites(record):
                pair = words.site_gap(record, site, series, other)
                found |= numbers_of(asdict(pair[0])) if pair else set()
    return found


PROSE = {1982.0, 1967.0, 95.0, 11.0, 10.0, 2025.0, 1.0, 0.0}
"""Years of papers, the confidence in per cent and the minimum cell of the plan's defaults, the date."""


@pytest.mark.parametrize(
    "make", [realistic, lambda: with_external(realistic(2)), lambda: only(realistic(), "federated")]
)
def test_every_number_shown_is_in_the_record_or_follows_from_it(make):
    """Law 8: each number on the page is a rounding of one in the record or of a stated rule applied to it."""
    record = make()
    plan = select.plan_of(record)
    known = numbers_of(asdict(record)) | derived_numbers(record) | numbers_of(asdict(plan)) | PROSE
    shown = re.findall(
        r"(?<![\w.])[+\u2212-]?\d[\d,]*(?:\.\d+)?(?:e-\d+)?(?![\w])", visible(report_html(record))
    )
    assert len(shown) > 100
    for text in shown:
        plain = text.replace("\u2212", "-").replace(",", "").lstrip("+")
        places = len(plain.partition(".")[2]) if "e" not in plain else 12
        value = float(plain)
        close = 0.5 * 10.0**-places + 1e-9 if places else 1e-9
        assert any(abs(abs(value) - abs(k)) <= close for k in known), f"{text} is in no record"


def test_no_number_is_typed_by_hand():
    """A record without any result shows no figure but those of the text: years, confidence, minimum cell."""
    record = replace(only(realistic()), plan_toml="", intake={}, run="r", created="then", seed=7)
    record = replace(record, plan_digest="-", code_digest="-", question="q")
    shown = set(re.findall(r"(?<![\w./])\d+(?:\.\d+)?", visible(report_html(record))))
    assert shown <= {"1982", "1967", "95", "11", "0", "7"}


def test_harm_is_said_first_and_in_red():
    page = report_html(realistic(1, harm=True))
    body = page[page.index("</header>") :]
    assert body.index('class="box harm"') < body.index('class="lead"')
    assert body.index("evora") < body.index('class="lead"')
    assert "Federation makes 1 hospital worse than working alone" in visible(page)


def test_no_harm_no_alarm(page):
    assert "worse than working alone" not in visible(page)


def test_harm_written_the_other_way_round_is_still_harm():
    """`alone - federated` above zero is the same statement."""
    record = replace(
        realistic(),
        comparisons={"altona": (Comparison("alone", "federated", "auroc", Estimate(0.05, 0.02, 0.08)),)},
    )
    assert [h.site for h in words.harms(record)] == ["altona"]


def test_a_comparison_inside_a_private_arm_is_about_the_private_model():
    record = only(realistic(), "federated-dp")
    arm = record.arms["federated-dp"]
    worse = Comparison("federated", "alone", "auroc", Estimate(-0.1, -0.15, -0.05))
    sites = {**arm.sites, "altona": replace(arm.sites["altona"], comparisons=(worse,))}
    record = replace(record, arms={"federated-dp": replace(arm, sites=sites)})
    assert [(h.site, h.series) for h in words.harms(record)] == [("altona", "federated-dp")]


def test_a_subset_is_said_wherever_the_result_is_shown():
    text = visible(report_html(realistic(missing=("fermo",))))
    assert "Subset: fewer hospitals than expected" in text
    assert "5 of 6 hospitals trained one model together" in text
    assert "no-reply" in text


def test_lists_that_disagree_with_the_flag_count_as_subset():
    """The record's own word may be wrong; its lists are looked at as well."""
    record = realistic(missing=("fermo",))
    arms = {
        name: replace(arm, federation=replace(arm.federation, subset=False)) if arm.federation else arm
        for name, arm in record.arms.items()
    }
    assert len(select.subset_arms(replace(record, arms=arms))) == 2


def test_a_hostile_name_stays_text():
    """Site, manufacturer, question and code are all given by others."""
    record = with_external(realistic(), HOSTILE)
    record = replace(record, question=HOSTILE, study=HOSTILE, intake={HOSTILE: record.intake["altona"]})
    page = report_html(record)
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_formula_in_a_name_is_disarmed_in_the_numbers():
    page = report_html(with_external(realistic(), "=cmd|'/c calc'!A1"))
    tables = [unquote(uri) for uri in re.findall(r'href="data:text/csv[^,]*,([^"]*)"', page)]
    assert any("'=cmd" in html.unescape(table) for table in tables)
    assert not any(re.search(r"(^|,)\"?=cmd", html.unescape(table), flags=re.MULTILINE) for table in tables)


def test_what_was_held_back_stays_held_back():
    """No count, no figure: neither on the page nor in the numbers behind a link."""
    record = realistic()
    arm = record.arms["federated"]
    groups = tuple(
        replace(
            g,
            positives=None,
            negatives=None,
            auroc=None,
            auprc=None,
            sensitivity=None,
            specificity=None,
            precision=None,
            f1=None,
            ece=None,
            calibration=(),
        )
        for g in arm.sites["altona"].models[0].groups
    )
    hidden = replace(arm.sites["altona"], models=(replace(arm.sites["altona"].models[0], groups=groups),))
    arms = {"federated": replace(arm, sites={**arm.sites, "altona": hidden})}
    page = report_html(replace(only(record, "federated"), arms=arms))
    assert "held back" in visible(page)
    assert "<11" in visible(page)
    forest = next(u for u in re.findall(r'href="data:text/csv[^,]*,([^"]*)"', page) if "band_low" in u)
    assert "hospital,altona,,,,,,,,,0,no" in unquote(forest)


def test_suppressed_intake_shows_its_bound(page):
    assert "quality-blank <11" in visible(page)


def test_nothing_is_fetched(page):
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", page)
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page
    assert "<script" not in page


def test_every_figure_has_words_numbers_and_patients(page):
    figures = re.findall(r"<figure>.*?</figure>", page, flags=re.DOTALL)
    assert len(figures) >= 8
    for figure in figures:
        assert 'aria-label="' in figure
        assert "download numbers" in figure
        assert re.search(r"patients", figure)


@pytest.mark.parametrize("arms", [("federated",), ("alone",), ("pooled",), ("federated-dp",), ()])
def test_any_arm_may_be_missing(arms):
    text = visible(report_html(only(realistic(), *arms)))
    assert "Methods and limits" in text
    assert "What only virtual patients can show" not in text


def test_a_site_of_one_class_shows_its_sensitivity():
    page = report_html(with_external(realistic()))
    text = visible(page)
    assert "one class only" in text
    row = re.search(r"<tr><td>hannover</td>.*?</tr>", page, flags=re.DOTALL)
    assert row is not None
    assert re.search(r"0\.\d\d \(", row.group())
    assert "hannover" not in words.mean_auroc(with_external(realistic()), "federated")[1]


def test_the_interval_of_a_mean_auroc_ends_at_one_and_of_one_hospital_is_its_own():
    """A normal interval around a high AUROC would run past what can be."""
    record, high = realistic(), Estimate(0.97, 0.80, 1.0)
    arm = record.arms["federated"]
    told = [(s, m) for s, m in arm.sites.items() if m.models[0].groups[0].auroc][:2]
    sites = {
        name: replace(site, models=(replace(m, groups=(replace(m.groups[0], auroc=high), *m.groups[1:])),))
        for name, site in told
        for m in site.models[:1]
    }
    both = words.mean_auroc(replace(record, arms={"federated": replace(arm, sites=sites)}), "federated")
    assert both is not None
    assert both[0].high == 1.0
    assert 0.8 < both[0].low < both[0].value == pytest.approx(0.97)
    lone = {told[0][0]: sites[told[0][0]]}
    alone = replace(record, arms={"federated": replace(arm, sites=lone)})
    assert words.mean_auroc(alone, "federated") == (high, (told[0][0],))
    assert "1 hospitals" not in visible(report_html(alone))


def test_the_simulation_part_is_marked_and_says_whether_the_scanner_was_named(page):
    part = page[page.index('class="simonly"') :]
    assert "a real federation never has them" in visible(part)
    assert "The planted weak scanner was named" in visible(part)


def test_law_0_is_stated(page):
    text = " ".join(visible(page).split())
    assert "are not differentially private" in text
    assert "protect the patients whose images trained the model" in text


def test_the_file_is_small_and_whole(tmp_path):
    path = tmp_path / "runs" / "report.html"
    write_report(realistic(), path)
    assert path.stat().st_size < 2_000_000
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_report(realistic(), tmp_path / "file" / "report.html")


def test_every_way_in_which_a_hospital_can_be_wrong_has_words_of_its_own():
    codes = [case.code or "duplicate" for case in CASES.values()]
    assert {code for code in codes if meaning(code, reply=True)[0] == "\u2014"} == set()
    assert meaning("timeout")[0] != meaning("timeout", reply=True)[0], "reading a file is not a round"


def test_every_code_a_file_can_be_refused_with_has_a_meaning():
    """The codes stand in the client's source; the words for the consortium stand here."""
    folders = ("client/intake", "client/deid", "client/preprocess")
    sources = [path for folder in folders for path in (ROOT / folder).glob("*.py")]
    sources += list((ROOT / "client").glob("quality*.py"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    blocks = re.findall(r"FileRefused\([^)]*?code=f?\"([a-z-]+)", text, flags=re.DOTALL)
    codes = set(blocks) | set(re.findall(r"\"((?:quality|pixel|pixels)-[a-z]+)\"", text))
    assert len(codes) > 15
    assert {code for code in codes if meaning(code)[0] == "\u2014"} == set()


def test_an_unknown_code_is_shown_and_sent_to_the_hospital():
    assert "own report" in meaning("never-heard-of")[1]


def test_many_hospitals_do_not_break_the_drawing():
    """Thirty sites with names as long as the rules allow."""
    record = realistic()
    many = {}
    for name, arm in record.arms.items():
        sites = {f"hospital-{'x' * 50}-{k}": arm.sites["altona"] for k in range(30)}
        many[name] = replace(arm, sites=sites, federation=None)
    assert "hospital-" in report_html(replace(record, arms=many, comparisons={}))
