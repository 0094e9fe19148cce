"""What a researcher types: runs beside one another, and one report written anew."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from typer.testing import CliRunner

from server.records import write_record
from simulations.cli import app
from tests.server.bias_records import biased


def runs(folder: Path) -> list[str]:
    """Two runs of different seeds."""
    places = []
    for seed in (1, 2):
        place = folder / f"run-{seed}"
        place.mkdir()
        write_record(replace(biased(), seed=seed, run=place.name), place / "metrics.json")
        places.append(str(place))
    return places


def test_two_runs_give_a_page_beside_the_first(tmp_path: Path):
    answer = CliRunner().invoke(app, ["report", *runs(tmp_path), "--json"])
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert told["page"] == str(tmp_path / "comparison.html")
    assert (tmp_path / "comparison.html").is_file()
    assert len(told["runs"]) == 2
    assert "different seeds" in told["warnings"][0]
    plain = CliRunner().invoke(app, ["report", str(tmp_path / "run-1"), str(tmp_path / "run-2")])
    assert f"With care: {told['warnings'][0]}" in plain.stderr


def test_one_run_gives_its_report_anew(tmp_path: Path):
    first, _ = runs(tmp_path)
    answer = CliRunner().invoke(app, ["report", first])
    assert answer.exit_code == 0, answer.output
    assert 'id="bias"' in (Path(first) / "report.html").read_text()


def test_a_folder_without_a_run_is_named(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    answer = CliRunner().invoke(app, ["report", str(tmp_path / "empty")])
    assert answer.exit_code not in (0, 70)
    assert "empty" in answer.output
