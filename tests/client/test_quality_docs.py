"""The table of bounds in the documents is the one in the code."""

from __future__ import annotations

import math
import re
from pathlib import Path

from client.quality import BOUNDS, ENOUGH_IMAGES
from client.quality_hash import NEAR, NEAR_DETAIL
from client.quality_pose import template
from client.quality_site import ENOUGH_PATIENTS

TEXT = (Path(__file__).parents[2] / "docs" / "quality.md").read_text(encoding="utf-8")


def number(value: float) -> str:
    """A bound as it stands in the table."""
    return "" if math.isinf(value) else f"{value:g}"


def test_the_table_of_bounds_is_that_of_the_code() -> None:
    block = TEXT.split("<!-- bounds:")[1].split("<!-- end of bounds -->")[0]
    rows = [
        [cell.strip() for cell in line.split("|")[1:5]]
        for line in block.splitlines()
        if "quality-" in line or "review-" in line
    ]
    limits = template()
    wanted = [[b.figure, number(b.low), number(b.high), b.code] for b in BOUNDS]
    wanted.append(["pose_margin", "", number(limits.margin), "review-orientation, review-inverted"])
    wanted.append(["pose_fit", number(limits.least), "", "review-projection"])
    assert rows == wanted


def test_the_text_names_the_numbers_of_the_code() -> None:
    plain = re.sub(r"\s+", " ", TEXT)
    assert f"After the first {ENOUGH_IMAGES} images" in plain
    assert f"must be of at least {ENOUGH_PATIENTS} patients" in plain
    assert f"at most {NEAR} of the first and {NEAR_DETAIL} of the second" in plain
    limits = template()
    assert f"more than {limits.margin:g} in log odds, by more than {limits.margin_both:g}" in plain
