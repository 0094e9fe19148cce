"""The README is a program: its commands run, in its order, in one empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>[^>]+) -->\n)?```sh(?P<mark>[^\n]*)\n(?P<code>.*?)```", re.DOTALL
)
MAKE = {"make demo", "make test"}
"""What CI runs itself: `make test` is running now, `make demo` is the product."""


def blocks() -> list[tuple[str, str, str]]:
    """(mark, reason for not running, commands) of every shell block."""
    return [(m["mark"].strip(), m["why"] or "", m["code"]) for m in BLOCK.finditer(TEXT)]


def test_every_block_is_run_or_says_why_not() -> None:
    for mark, why, code in blocks():
        assert mark == "run" or why or set(code.strip().splitlines()) <= MAKE, code


def test_no_block_hides_behind_another_language() -> None:
    assert set(re.findall(r"^```(\w+)", TEXT, re.MULTILINE)) <= {"sh", "toml", "text", "python"}


def test_the_blocks_marked_run_do(tmp_path) -> None:
    """One shell session from top to bottom, as a newcomer types it, with the console scripts on the path."""
    script = "\n".join(code for mark, _, code in blocks() if mark == "run")
    assert script
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "CONSILIUM_CHECKOUT": str(ROOT),
    }
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("target", sorted(MAKE))
def test_the_two_commands_are_targets_of_the_makefile(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target.removeprefix('make ')}:", makefile, re.MULTILINE)
