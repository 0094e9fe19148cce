"""The page of a site's holdings: every check's distribution with its bounds, and what was refused beside it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from client.cli import app
from client.index import FileOutcome, Index
from client.quality import BOUNDS, ENOUGH_IMAGES
from client.quality_figures import measure
from client.quality_site import refresh_percentiles
from client.report.distributions import NAMES, default_bounds, distributions, strip
from client.site import Site
from tests.browser import chromium
from tests.client.made import fill, made_site, noise

FIGURES = {name: float(value) for name, value in measure(noise(1, (64, 64)).astype(np.float32)).items()}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Site:
    """Images of one scanner with bounds of its own, one refused by them, a reader, a name that must not run."""
    made = made_site(tmp_path_factory.mktemp("status") / "site")
    fill(made, ENOUGH_IMAGES + 20, scanner="S1", manufacturer="<b>Aster</b>", model="DR-1")
    rng = np.random.default_rng(0)
    with Index(made.index) as index, index.transaction():
        for row in index.images():
            quality = {name: value * rng.uniform(0.9, 1.1) for name, value in FIGURES.items()}
            values = (json.dumps(quality), row.sop_uid)
            index._run("UPDATE images SET quality = ? WHERE sop_uid = ?", values)
    with Index(made.index) as index:
        refresh_percentiles(index)
        far = {**FIGURES, "median": FIGURES["median"] * 3}
        index.record_file("k1", FileOutcome("quality-exposure", "q1", "", "DX", "S1", far))
        index.record_file("k2", FileOutcome("burned-in", "q2"))
        index.record_file("k3", FileOutcome("discarded", "q3"))
    return made


@pytest.fixture(scope="module")
def page(site: Site, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "status.html"
    done = CliRunner().invoke(app, ["status", "--site", str(site.folder), "--html", str(path)])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"Written to {path}.\n"
    return path


def test_figures_of_refused_images_stand_beside_the_accepted(site: Site) -> None:
    with Index(site.index) as index:
        (scanner,) = distributions(index)
    assert (scanner.images, scanner.refused, scanner.from_images) == (220, {"quality-exposure": 1}, 220)
    (median,) = [one for one in scanner.strips if one.figure == "median"]
    assert len(median.accepted) == 220
    assert median.refused == (FIGURES["median"] * 3,)
    assert median.own is not None
    assert median.own[1] < median.refused[0]
    drawn = str(strip(median))
    assert drawn.count("<polygon") == 1
    assert drawn.count('class="limit"') == 2


def test_a_reason_says_what_to_do_also_when_nothing_lies_in_quarantine_any_more(page: Path) -> None:
    text = page.read_text()
    assert "discard ID --undo" in text
    assert "its original is no longer kept" in text


def test_every_bound_of_the_gate_has_its_panel() -> None:
    assert {bound.figure for bound in BOUNDS} <= set(NAMES)
    assert set(default_bounds("DX")) <= set(NAMES)
    assert "exposure" not in default_bounds("CT")


def test_the_page_says_that_it_stays_and_loads_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("Stays in the hospital") >= 2
    assert "&lt;b&gt;Aster" in text
    assert "<b>Aster" not in text
    assert not re.search(r"(src|href)=\"(?!#|data:)", text)
    for word in ("quality-exposure", "burned-in", "own bounds from 220 images"):
        assert word in text


@pytest.mark.parametrize("width", [1200, 420])
def test_the_page_fits_its_window(page: Path, width: int, tmp_path: Path) -> None:
    """Nothing but tables, which scroll by themselves, is wider than the window."""
    probe = tmp_path / "probe.html"
    text = page.read_text(encoding="utf-8")
    text = text.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
    wide = "document.title='wide:'+(document.documentElement.scrollWidth-innerWidth)"
    probe.write_text(text.replace("</body>", f"<script>{wide}</script></body>"), encoding="utf-8")
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"]
    command += [f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"<title>wide:(-?\d+)</title>", done.stdout)
    assert found is not None
    assert int(found[1]) <= 0
