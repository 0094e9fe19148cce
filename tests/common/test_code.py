"""The digest of our own code: the same for the same files, another for any change."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from common.code import PACKAGES, code_digest, files

ROOT = Path(__file__).resolve().parents[2]


def _copy(to: Path) -> Path:
    for package in PACKAGES:
        for path in files(ROOT / package):
            target = to / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return to


def _digest_in(folder: Path) -> str:
    code = "from common.code import code_digest; print(code_digest())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_a_copy_elsewhere_has_the_same_digest_until_one_byte_changes(tmp_path):
    folder = _copy(tmp_path)
    before = _digest_in(folder)
    assert _digest_in(folder) == before
    assert before.startswith("sha256:")
    path = folder / "client" / "policy.py"
    path.write_text(path.read_text() + "\n")
    changed = _digest_in(folder)
    assert changed != before
    profile = next((folder / "client").rglob("*.toml"))
    profile.write_text(profile.read_text() + "# a rule less\n")
    assert _digest_in(folder) not in (before, changed)
    path.rename(folder / "client" / "rules.py")
    assert _digest_in(folder) not in (before, changed)


def test_bytecode_and_pages_do_not_count(tmp_path):
    folder = _copy(tmp_path)
    before = _digest_in(folder)
    (folder / "client" / "notes.html").write_text("<p>")
    (folder / "client" / "__pycache__").mkdir(exist_ok=True)
    (folder / "client" / "__pycache__" / "x.py").write_text("")
    assert _digest_in(folder) == before


def test_this_process_has_one_digest():
    assert code_digest() == code_digest()
