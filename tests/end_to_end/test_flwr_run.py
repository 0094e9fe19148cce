"""The same federation by `flwr run`: real SuperLink, real Ray workers, the app bundle itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from client.service import SiteService
from common import plan as plans
from common.checkpoints import load
from common.code import PACKAGES, files
from common.errors import FederationError, SubsetError
from server.journal import read_federation, write_federation
from server.launch import Launch, flwr_run, judge
from simulations.grid import run_in_process
from tests.client.made import made_plan
from tests.sites import image_site

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("alpha", "beta")
PLAN = made_plan(federation={"rounds": 2, "least_sites": 2}, evaluation={"min_cell": 1, "bootstrap": 100})


def _checkout(folder: Path) -> Path:
    """What a bundle is made of, so that nobody's edits of the moment get between the two runs."""
    folder.mkdir()
    for package in ("common", "client", "server"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / file).exists():
            shutil.copy(ROOT / file, folder)
    return folder


def test_flwr_run_gives_the_same_bits_as_the_in_process_grid(tmp_path):
    for name in NAMES:
        image_site(tmp_path / "prepared" / name, name)
    for run in ("here", "flower"):
        shutil.copytree(tmp_path / "prepared", tmp_path / run)
    services = [SiteService(image_site(tmp_path / "here" / name, name)) for name in NAMES]
    here = run_in_process(services, PLAN, tmp_path / "out-here")
    (tmp_path / "plan.toml").write_text(plans.dump_plan(PLAN))
    lines: list[str] = []
    launch = Launch(
        _checkout(tmp_path / "app"),
        tmp_path / "plan.toml",
        tmp_path / "flower",
        tmp_path / "out-flower",
        lines.append,
    )
    assert flwr_run(launch) == 0, "\n".join(lines[-40:])
    there = read_federation(tmp_path / "out-flower" / "federation.json")
    assert there.trained == here.trained == NAMES
    assert there.threshold == here.threshold
    one, two = (load(tmp_path / f"out-{run}" / "model.safetensors").arrays for run in ("here", "flower"))
    assert list(one) == list(two)
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    for name in NAMES:
        assert here.sites[name].models == there.sites[name].models


def test_a_run_that_flower_calls_finished_is_not_yet_a_run_that_completed(tmp_path):
    """`flwr run --stream` returns 0 whatever happened; the judgement needs both witnesses."""
    image_site(tmp_path / "alpha", "alpha")
    plan = plans.replace(PLAN, federation={"least_sites": 1})
    record = run_in_process([SiteService(image_site(tmp_path / "alpha", "alpha"))], plan, tmp_path / "out")
    assert judge(tmp_path / "out", "finished:completed") == 0
    assert judge(tmp_path / "out", "finished:failed") == FederationError.exit_status
    assert judge(tmp_path / "out", "unknown") == FederationError.exit_status
    assert judge(tmp_path / "nowhere", "finished:completed") == FederationError.exit_status
    write_federation(replace(record, status="subset"), tmp_path / "out" / "federation.json")
    assert judge(tmp_path / "out", "finished:completed") == SubsetError.exit_status


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The names in the app bundle Flower builds from the checkout."""
    folder = _checkout(tmp_path_factory.mktemp("fab") / "consilium")
    code = (
        "import io, json, sys, zipfile; from pathlib import Path; from flwr.cli.build import build_fab_from_disk;"
        "print(json.dumps(zipfile.ZipFile(io.BytesIO(build_fab_from_disk(Path(sys.argv[1])))).namelist()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True, timeout=120
    )
    return folder, json.loads(done.stdout)


def test_the_bundle_holds_our_three_packages_and_nothing_else(bundle):
    _, names = bundle
    tops = {name.split("/")[0] for name in names}
    assert tops <= {"common", "client", "server", "pyproject.toml", ".info", "README.md", "LICENSE"}
    assert {"common", "client", "server"} <= tops


def test_the_bundle_holds_every_file_the_code_digest_counts(bundle):
    """Otherwise a server in a bundle and a site with the installed release would never agree."""
    folder, names = bundle
    counted = {str(path.relative_to(folder)) for package in PACKAGES for path in files(folder / package)}
    assert counted <= set(names)
