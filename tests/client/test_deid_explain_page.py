"""The page a data-protection officer reads: whole, self-contained, searchable, and true to the profile."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.deid.explain import TREATMENTS, lines, one
from client.deid.explain_page import page
from client.deid.profile import built_in
from client.deid.settings import DeidSettings
from client.deid.tighten import effective
from tests.browser import chromium


@pytest.fixture(scope="module")
def html() -> str:
    return page(lines(built_in()), built_in(), "st-anna")


def test_every_attribute_of_the_standard_and_of_the_profile_has_its_row(html):
    assert html.count("<tr data-treatment=") == len(lines(built_in())) + 1
    for word in (
        "(50xx,xxxx)",
        "(60xx,3000)",
        "(gggg,eeee)",
        "PatientBirthDate",
        "PixelData",
        built_in().digest,
    ):
        assert word in html


def test_the_counts_are_those_of_the_rows(html):
    shown = dict(re.findall(r'<div class="card"><b>([\d,]+)</b><span>(\w+)</span>', html))
    rows = re.findall(r'<tr data-treatment="(\w+)"', html)[:-1]
    assert {name: int(count) for count, name in shown.items()} == {
        name: rows.count(name) for name in TREATMENTS
    }


def test_it_loads_nothing_and_runs_one_script_only(html):
    assert not re.search(r'(?:src|href)="(?!#|data:)', html)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert "unsafe-eval" not in html


def test_options_that_are_off_are_not_claimed():
    off = DeidSettings(patient_characteristics=False, longitudinal_dates=False)
    profile = effective(off)
    text = page(lines(profile), profile, "st-anna")
    assert "113107" not in text
    assert "113108" not in text


@pytest.mark.parametrize("on", [True, False])
def test_what_is_not_done_to_pixels_here_is_not_said(on):
    """A hospital that searches no pixels, or leaves faces, reads that and not what others do."""
    profile = effective(DeidSettings(burned_in_text="find" if on else "ignore", deface_head_mr=on))
    text = page(lines(profile), profile, "st-anna")
    assert ("113101" in text, "113102" in text) == (on, on)
    assert ("decoded, searched for text, and written anew" in text) == on
    assert ("decoded, not searched for text, and written anew" in text) != on
    single = one(profile, "PixelData")
    assert single is not None
    assert ("not searched" in single.action) != on


def test_a_looser_profile_says_so_in_red():
    rules = {**built_in().rules}
    rules["StudyID"] = replace(rules["StudyID"], action="keep")
    loose = replace(built_in(), rules=rules)
    text = page(lines(loose), loose, "st-anna")
    assert "Looser than the standard: StudyID" in text
    assert 'class="box harm"' in text


def rendered(path: Path, query: str, tmp_path: Path) -> str:
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"]
    command += [
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=2000",
        f"{path.as_uri()}#{query}",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_the_search_hides_what_was_not_asked_for(tmp_path, html):
    """In a real browser: the page's policy lets its own script run, and the script finds by words."""
    path = tmp_path / "page.html"
    path.write_text(html, encoding="utf-8")
    found = rendered(path, "birthdate", tmp_path)
    total = html.count("<tr data-treatment=")
    shown = int(re.search(rf"(\d+) of {total}</output>", found)[1])
    visible = re.findall(r'<tr data-treatment="\w+"[^>]*?>', found)
    assert len(visible) == total
    assert 0 < shown < 10
    assert sum("hidden" not in row for row in visible) == shown


def test_the_command_writes_the_page(tmp_path):
    result = CliRunner().invoke(app, ["deid", "explain", "--html", str(tmp_path / "deid.html")])
    assert result.exit_code == 0
    assert "Every attribute" in (tmp_path / "deid.html").read_text(encoding="utf-8")
