"""`make federation`: everything that a real federation runs, on this machine, with one process killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from client.cli import app as site
from common.code import PACKAGES
from server.cli import app as server
from simulations.federation_told import Outcome, table
from tests.orthanc import program

ROOT = Path(__file__).resolve().parents[2]


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "simulations.cli", "federation", "--folder", str(folder), *words]


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    done = subprocess.run(command(tmp_path), capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert "holds something already" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_is_told_at_the_end_can_be_typed(tmp_path: Path) -> None:
    """Every command named there is one, under the path that is named, and every path lies in the folder."""
    outcome = Outcome(
        tmp_path, "demo-1-0", ("alder", "birch"), 2, False, "node of birch", 0.2, 16.3, {"Round 1": 30.0}
    )
    told = table(outcome)
    assert "16.3 s after the kill" in told
    commands = [line.split() for line in told.splitlines() if "consilium-s" in line.partition(" --")[0]]
    assert len(commands) == 4
    for words in commands:
        assert Path(words[0]).is_file(), words[0]
        name = {"consilium-server": server, "consilium-site": site}[Path(words[0]).name]
        group: Any = typer.main.get_command(name)
        for word in words[1:]:
            if word not in getattr(group, "commands", {}):
                break
            group = group.commands[word]
        assert not hasattr(group, "commands"), words
        assert words[-1].startswith(str(tmp_path))


@pytest.mark.slow
def test_a_federation_trains_two_rounds_though_a_process_is_killed(tmp_path: Path) -> None:
    """Enrolled through the edge, approved, trained over TLS; the node that was killed is back and nobody is missing."""
    program("nginx", "nginx")
    program("stunnel4", "stunnel4")
    code = tmp_path / "code"  # as it is now, so that nobody's edit comes between two processes
    for package in (*PACKAGES, "simulations"):
        shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", code)
    done = subprocess.run(
        command(tmp_path / "all", "--patients", "150", "--json"),
        env={**os.environ, "PYTHONPATH": str(code), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["rounds"] == 2
    assert seen["subset"] is False
    assert len(seen["sites"]) == 3
    assert seen["back_s"] < 30
    study = tmp_path / "all" / "consortium" / "runs" / seen["study"]
    reported = CliRunner().invoke(server, ["report", str(study)])
    assert reported.exit_code == 0, reported.output
    page = (study / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in seen["sites"])
