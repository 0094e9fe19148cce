"""The corpus of burned-in text, its measure, and the page that shows it."""

from __future__ import annotations

import base64
import json
import re
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from client.deid.settings import DeidSettings
from client.deid.text.clean import clean
from client.deid.text.detect import DILATIONS, MAPS, WEIGHTS
from client.deid.text.found import TextReview
from simulations.cli import app
from simulations.text_corpus import (
    BITS,
    CONTRASTS,
    FONTS,
    clean_cases,
    draw_text,
    marker_cases,
    stratum,
    text_cases,
)
from simulations.text_recall import Share, _ink_gone
from simulations.text_training import as_toml, examples, written

PAGE = (Path(__file__).parents[2] / "docs" / "burned-in-text.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\w+) \| ([\w ]+) \| (\d+)/(\d+) ", re.MULTILINE)


def test_every_level_of_every_factor_comes_equally_often_and_in_no_fixed_company():
    strata = [stratum(number) for number in range(600)]
    for factor in range(5):
        counts = Counter(one[factor] for one in strata).values()
        assert max(counts) - min(counts) <= 1
    assert len(set(strata)) > 450


def test_text_is_where_the_case_says_and_of_the_contrast_it_says():
    for case in text_cases(8, 3):
        assert case.box is not None
        assert case.pixels.max() < 2 ** BITS[case.modality]
        level = case.pixels[case.box.top : case.box.bottom, case.box.left : case.box.right]
        assert level.std() > 0
        assert min(level.shape) >= min(case.height, 6)
        assert case.contrast in CONTRASTS


def test_the_same_seed_makes_the_same_images_and_another_others():
    one, same, other = (next(text_cases(1, seed)) for seed in (5, 5, 6))
    assert np.array_equal(one.pixels, same.pixels)
    assert not np.array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("font", FONTS)
def test_letters_are_as_high_as_asked(font):
    for height in (8, 16, 24):
        assert abs(draw_text("HEX", height, font).shape[0] - height) <= 3


def test_ink_counts_as_gone_only_when_nearly_all_of_it_is_covered():
    case = next(text_cases(1, 1))
    assert case.box is not None
    cleaned = clean(case.pixels, Dataset(), DeidSettings(burned_in_text="ignore"))
    assert not _ink_gone(case.pixels, cleaned, case.box)


def test_a_share_has_wilsons_interval():
    share = Share.of(8, 10)  # Newcombe 1998, table I, method 3
    assert (round(share.low, 3), round(share.high, 3)) == (0.490, 0.943)
    assert Share.of(0, 0) == Share(0, 0, 0.0, 1.0)


def test_clear_text_is_found_and_clean_images_and_markers_stay_whole():
    clear = [case for case in text_cases(60, 2) if case.contrast in ("100", "top") and case.height >= 16]
    lost = 0
    for case in clear:
        try:
            lost += not clean(case.pixels, Dataset(), DeidSettings()).blanked
        except TextReview:
            continue
    assert len(clear) >= 6
    assert lost <= 1
    for case in [*clean_cases(6, 2), *marker_cases(4, 2)]:
        assert clean(case.pixels, Dataset(), DeidSettings()).blanked == ()


def test_the_command_reports_every_stratum(tmp_path):
    out = tmp_path / "recall.md"
    result = CliRunner().invoke(
        app, ["text-recall", "--cases", "20", "--seed", "4", "--out", str(out), "--json"]
    )
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["cases"] == report["found"]["whole"] == 20
    assert sum(s["found"]["whole"] for s in report["strata"]) == 5 * 20
    assert report["found"]["part"] >= report["blanked"]["part"]
    assert {c["kind"] for c in report["clean"]} >= {"clean DX", "clean CT", "clean MR", "clean US"}
    assert "| contrast | 20 |" in out.read_text(encoding="utf-8")


def test_the_page_shows_at_least_three_hundred_cases_and_every_stratum_of_them():
    rows = {(factor, level): int(whole) for factor, level, _, whole in ROW.findall(PAGE)}
    cases = int(re.search(r"^\| all \| \| \d+/(\d+) ", PAGE, re.MULTILINE)[1])
    assert cases >= 300
    strata = [stratum(number) for number in range(cases)]
    for factor in ("contrast", "height", "font", "place", "modality"):
        for level, count in Counter(str(getattr(one, factor)) for one in strata).items():
            assert rows[factor, level] == count


def test_the_page_keeps_its_promise_over_the_fact_sheet():
    """69% of all and 89% where contrast is at least 60: what the reader alone found when it was chosen."""
    found, whole = map(int, re.search(r"^\| all \| \| (\d+)/(\d+) ", PAGE, re.MULTILINE).groups())
    clear, clear_whole = map(int, re.search(r"60 and more \| (\d+)/(\d+) ", PAGE).groups())
    assert found / whole > 0.69
    assert clear / clear_whole > 0.89


def test_weights_are_text_of_the_sizes_the_detector_wants():
    layers = tomllib.loads(WEIGHTS.read_text(encoding="utf-8"))["layer"]
    assert len(layers) == len(DILATIONS) + 1
    assert [layer["inputs"] for layer in layers[:1]] == [9 * MAPS]
    for layer in layers:
        numbers = np.frombuffer(base64.b64decode(layer["numbers"]), "<f2")
        assert numbers.size == (layer["inputs"] + 1) * layer["filters"]
        assert np.isfinite(numbers.astype(np.float32)).all()


def test_training_writes_what_the_detector_reads_and_knows_which_squares_are_text():
    weight, bias = np.eye(3, 2, dtype=np.float32), np.ones(2, np.float32)
    layer = tomllib.loads(as_toml([(weight, bias)]))["layer"][0]
    numbers = np.frombuffer(base64.b64decode(layer["numbers"]), "<f2").reshape(4, 2)
    assert np.array_equal(numbers, np.vstack([weight, bias]))
    first = next(iter(examples(1)))
    assert set(np.unique(first.truth)) <= {-1.0, 0.0, 1.0}
    assert first.maps.shape[:2] == first.truth.shape
    pixels, heights = written(np.full((128, 128), 900, np.uint16), 12, np.random.default_rng(8))
    assert (heights > 0).any()
    assert (pixels[heights == 0] <= 900).all()
