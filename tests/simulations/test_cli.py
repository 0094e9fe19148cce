"""What a researcher types: exports to try intake on, and whether the weak scanner is named."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.intake.ingest import ingest
from client.site import init_site
from server.records import RunRecord
from simulations.cli import app
from simulations.weak_scanner import ARMS, Findings, judge
from tests.server.report_records import WEAK, realistic


def typed(*words: str | Path):
    return CliRunner().invoke(app, [str(word) for word in words])


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_an_export_can_be_taken_in_and_what_is_wrong_in_it_is_refused(tmp_path: Path) -> None:
    result = typed("export", tmp_path / "a", "--hospitals", "1", "--patients", "20", "--json")
    assert result.exit_code == 0
    (alder,) = json.loads(result.stdout)
    assert (alder["hospital"], alder["patients"], alder["traps"]) == ("alder", 20, {"burned-in": 5})
    report = ingest(
        init_site(tmp_path / "site", "alder"), Path(alder["folder"]), Path(alder["labels"]), workers=1
    )
    assert report.received == alder["files"]
    assert report.accepted == alder["files"] - 5
    assert report.refused == {"review-burned-in": 5}
    assert (report.labels_without_image, report.images_without_label) == (0, 0)


def test_an_export_is_the_same_for_the_same_seed_and_no_other(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        words = ("--hospitals", "2", "--patients", "16", "--seed", str(seed))
        assert typed("export", tmp_path / name, *words).exit_code == 0
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a") != digests(tmp_path / "c")
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"alder", "birch"}


def test_an_export_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    for place in (tmp_path, tmp_path / "mine"):
        result = typed("export", place)
        assert result.exit_code == 2
        assert "holds something" in result.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]


def test_too_many_hospitals_for_the_patients_are_refused(tmp_path: Path) -> None:
    result = typed("export", tmp_path / "x", "--hospitals", "5", "--patients", "10")
    assert result.exit_code == 2
    assert not (tmp_path / "x").exists()


def test_the_report_s_word_on_the_weak_scanner_is_judged() -> None:
    """The record was drawn with one weak scanner; who looks for another is told that it is not named."""
    record = realistic()
    found = judge(1, record, WEAK)
    assert found.found
    assert found.wrong == ()
    assert ("manufacturer", WEAK) in {(weak.family, weak.name) for weak in found.weak}
    other = judge(1, record, "Aster Imaging")
    assert not other.found
    assert other.wrong == (WEAK,)


def test_the_two_arms_are_all_that_the_report_speaks_of_weak_spots_by() -> None:
    record: RunRecord = realistic()
    fewer = replace(record, arms={name: arm for name, arm in record.arms.items() if name in ARMS})
    assert judge(1, fewer, WEAK).weak == judge(1, record, WEAK).weak


def test_the_table_says_no_where_the_weak_scanner_was_missed() -> None:
    table = Findings("Aster Imaging", (judge(4, realistic(), "Aster Imaging"),), False, True).table()
    cells = [next(iter(column.cells)) for column in table.columns]
    assert cells[:3] == ["4", "NO", WEAK]


@pytest.mark.slow
def test_a_run_too_small_to_name_anybody_ends_with_status_1(tmp_path: Path) -> None:
    words = ("--seeds", "1", "--hospitals", "2", "--patients", "80", "--rounds", "1", "--json")
    result = typed("weak-scanner", *words, "--out", tmp_path)
    assert result.exit_code == 1, result.stderr
    said = json.loads(result.stdout)
    assert (said["found_always"], said["wrong_ever"], said["seeds"][0]["seed"]) == (False, False, 1)
    (run,) = tmp_path.iterdir()
    assert (run / "metrics.json").is_file()
    assert not (run / "federation").exists(), "the virtual hospitals are removed"
