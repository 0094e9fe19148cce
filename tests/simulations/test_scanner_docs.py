"""docs/scanners.md says of every stage what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from simulations.scanners import told

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scanners.md"


def test_the_tables_of_the_page_are_those_of_the_code() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert told.put(text) == text, "run python -m simulations.scanners.told docs/scanners.md"
    for stages in told.CHAINS.values():
        for stage in stages:
            assert f"| `{stage.name}` |" in text


def test_putting_tables_changes_nothing_outside_the_marks() -> None:
    marks = [told.MARK.format(name) + "stale words" + told.MARK.format(f"end {name}") for name in told.CHAINS]
    page = "before\n" + "\nbetween\n".join(marks) + "\nafter\n"
    made = told.put(page)
    assert "stale words" not in made
    assert re.findall(r"^(?:before|between|after)$", made, re.MULTILINE) == [
        "before",
        "between",
        "between",
        "after",
    ]
    assert told.put(made) == made


def test_the_page_names_tests_that_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`tests/simulations/(test_\w+\.py)`", text))
    assert len(named) == 4
    assert all((Path(__file__).parent / name).exists() for name in named)
