"""The air-gapped bundle: made, checked, and installed where no index can be asked.

The short test takes the few packages that `consilium-site --help` needs; the slow one takes all of them, torch included.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, ROOT

FEW = (
    "annotated-types", "click", "markdown-it-py", "mdurl", "packaging", "pydantic", "pydantic-core", "pygments", "rich",
    "shellingham", "tomli-w", "typer", "typing-extensions", "typing-inspection",
)  # fmt: skip
"""What the command line imports before it knows what it is asked."""


def script():
    spec = importlib.util.spec_from_file_location("bundle", DEPLOY / "bundle.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unpacked(tar: Path, folder: Path) -> Path:
    with tarfile.open(tar) as archive:
        archive.extractall(folder, filter="data")
    (found,) = folder.iterdir()
    return found


def offline() -> dict[str, str]:
    """An environment in which pip finds no index and no settings."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("PIP_")}
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PYTHON": sys.executable, "PYTHONPATH": ""}
    return {**kept, **nowhere}


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    return unpacked(script().build(folder / "dist", only=FEW), folder / "unpacked")


def test_every_file_is_in_the_manifest_and_sha256sum_agrees(few: Path) -> None:
    listed = {line.split("  ")[1] for line in (few / "MANIFEST.sha256").read_text().splitlines()}
    there = {path.relative_to(few).as_posix() for path in few.rglob("*") if path.is_file()}
    assert listed == there - {"MANIFEST.sha256"}
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "MANIFEST.sha256"],
        cwd=few,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_a_changed_file_is_seen(few: Path, tmp_path: Path) -> None:
    target = few / "no.key"
    before = target.read_bytes()
    try:
        target.write_bytes(before[:-1] + b"!")
        done = subprocess.run(
            ["sha256sum", "--check", "--strict", "MANIFEST.sha256"],
            cwd=few,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "no.key: FAILED" in done.stdout
    finally:
        target.write_bytes(before)


def test_the_same_content_gives_the_same_bytes(few: Path, tmp_path: Path) -> None:
    digests = set()
    for number in range(2):
        script().pack(few, tmp_path / f"{number}.tar")
        digests.add(hashlib.sha256((tmp_path / f"{number}.tar").read_bytes()).hexdigest())
        os.utime(few / "no.key", (number, number))
    assert len(digests) == 1


def test_a_fresh_environment_installs_without_an_index_and_starts(few: Path, tmp_path: Path) -> None:
    """With --no-deps, because this bundle holds a few packages only; the slow test leaves that out."""
    fresh = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(fresh)], check=True)
    command = [
        *(sys.executable, "-m", "pip", "--python", fresh / "bin" / "python"),
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--find-links",
        few / "wheels",
    ]
    subprocess.run([*command, "-c", few / "constraints.txt", "consilium", *FEW], check=True, env=offline())
    done = subprocess.run(
        [fresh / "bin" / "consilium-site", "--help"],
        capture_output=True,
        text=True,
        check=False,
        env=offline(),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "doctor" in done.stdout


def test_the_installer_says_what_is_missing_and_asks_no_index(few: Path, tmp_path: Path) -> None:
    """This bundle is not whole, so the real installer must fail, and not by going to the network for the rest."""
    done = subprocess.run(
        ["sh", str(few / "install.sh"), str(tmp_path / "here"), "offline"],
        capture_output=True,
        text=True,
        check=False,
        env=offline(),
    )
    assert done.returncode != 0
    assert "No matching distribution found" in done.stderr


def installer(few: Path, *words: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(few / "install.sh"), *words],
        capture_output=True,
        text=True,
        check=False,
        env=offline() | {"PYTHON": python},
    )


@pytest.mark.parametrize("words", [(), ("--help",), ("-h", "offline")])
def test_the_installer_says_how_it_is_called(few: Path, words: tuple[str, ...]) -> None:
    done = installer(few, *words)
    assert done.returncode == 2
    assert done.stderr.startswith("Install Consilium")
    assert "install.sh FOLDER offline" in done.stderr


def test_a_bundle_that_suffered_on_its_way_is_not_installed(few: Path, tmp_path: Path) -> None:
    target = few / "no.key"
    before = target.read_bytes()
    try:
        target.write_bytes(before[:-1] + b"!")
        done = installer(few, str(tmp_path / "here"), "offline")
        assert done.returncode == 2
        assert "no.key: FAILED" in done.stderr
        assert "carry the bundle over again" in done.stderr
        assert not (tmp_path / "here").exists()
    finally:
        target.write_bytes(before)


def test_another_python_than_the_wheels_are_for_is_named(few: Path, tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho cp399\n")
    other.chmod(0o755)
    done = installer(few, str(tmp_path / "here"), "offline", python=str(other))
    assert done.returncode == 2
    ours = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert f"the wheels are for Python {ours} and {other} is cp399" in done.stderr
    assert not (tmp_path / "here").exists()
    done = installer(few, str(tmp_path / "here"), "offline", python=str(tmp_path / "none"))
    assert done.returncode == 2
    assert "PYTHON=... names another interpreter" in done.stderr


@pytest.mark.slow
def test_the_whole_bundle_installs_by_its_own_script(tmp_path: Path) -> None:
    """All wheels, torch included; several gigabytes and minutes."""
    whole = unpacked(script().build(tmp_path / "dist"), tmp_path / "unpacked")
    here = tmp_path / "here"
    asked = offline() | {"EXTRAS": "tracking"}
    subprocess.run(["sh", str(whole / "install.sh"), str(here), "offline"], check=True, env=asked)
    command = [here / "bin" / "python", "-c", "from server.tracking.board import library; library()"]
    subprocess.run(command, check=True, env=offline(), cwd=tmp_path)
    for program in ("consilium-site", "consilium-server"):
        done = subprocess.run(
            [here / "bin" / program, "sbom", "--out", tmp_path / "sbom.json"],
            check=False,
            env=offline(),
            cwd=tmp_path,
        )
        assert done.returncode == 0
    assert not (here / "bin" / "pip").exists()
    # A package brings a page of the manual along, in a folder of its own.
    assert {path.name for path in (here / "share").iterdir() if path.is_file()} == {"no.key", "runbook.md"}
    assert (ROOT / "docs" / "runbook.md").read_bytes() == (here / "share" / "runbook.md").read_bytes()
