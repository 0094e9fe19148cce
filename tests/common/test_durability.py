"""A process that simulates may leave it to the kernel when files reach the disk, and can then hold no real hospital."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from client.policy import Policy
from client.site import init_site
from common import durability

_LOAD = """
import sys
from pathlib import Path
from client.site import load_site
from common.durability import relax
from common.errors import SettingsError
relax()
try:
    print(load_site(Path(sys.argv[1])).name)
except SettingsError as error:
    print(error.subject, error.code)
"""
_SYNCS = """
import os, sys
from pathlib import Path
pushed = []
before = os.fsync
os.fsync = lambda handle: (pushed.append(handle), before(handle))
from client.privacy.ledger import Ledger
from common.audit import AuditLog
from common.checkpoints import write_whole
from common.durability import relax
if sys.argv[2] == "relaxed":
    relax()
home = Path(sys.argv[1])
AuditLog(home / "audit.jsonl").append("run.started", run="a")
write_whole(home / "whole", b"1")
Ledger.create(home / "ledger.sqlite", simulated=True).close()
print(len(pushed))
"""


def _said(code: str, *words: object) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def test_a_process_that_simulates_loads_no_real_hospital(tmp_path: Path):
    init_site(tmp_path / "real", "real", policy=Policy())
    init_site(tmp_path / "virtual", "virtual", simulation_seed=1, policy=Policy())
    assert _said(_LOAD, tmp_path / "real") == "site.simulated settings"
    assert _said(_LOAD, tmp_path / "virtual") == "virtual"


def test_everything_is_pushed_unless_a_process_said_that_it_simulates(tmp_path: Path):
    for word in ("strict", "relaxed"):
        (tmp_path / word).mkdir()
    assert int(_said(_SYNCS, tmp_path / "strict", "strict")) >= 4
    assert _said(_SYNCS, tmp_path / "relaxed", "relaxed") == "0"


def test_sqlite_is_told_the_same():
    assert not durability.relaxed()  # the tests' own process holds real hospitals
    assert durability.synchronous("EXTRA") == "EXTRA"
