"""Is anything spent that the ledger does not know, whenever the power fails or the process is killed?"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.client import crash_walk


@pytest.fixture
def scratch(tmp_path):
    return tmp_path


def test_a_power_failure_at_any_write_of_a_round_leaves_nothing_unpaid(scratch):
    """Every write, sync, truncate, creation, rename and delete of two rounds; six states each, torn ones too."""
    found = crash_walk.walk(crash_walk.new_site(scratch / "site"), "real", scratch)
    assert found.points > 100
    assert found.states == 6 * found.points
    assert (found.under, found.over, found.other) == ([], [], [])


@pytest.mark.parametrize("mutant", ["writes-after", "batches"])
def test_the_walk_catches_a_ledger_that_undercounts(scratch, mutant):
    found = crash_walk.walk(crash_walk.new_site(scratch / "site"), mutant, scratch, samples=0)
    assert found.under


def test_the_walk_catches_an_update_that_is_sent_before_it_is_stored(scratch):
    found = crash_walk.walk(crash_walk.new_site(scratch / "site"), "sends-first", scratch, samples=0)
    assert any("is not kept" in line for line in found.other)


def test_two_hundred_random_kills_leave_nothing_unpaid():
    """In a process of its own, because it forks; `make crash-walk` does a thousand."""
    command = [sys.executable, "-m", "tests.client.crash_walk", "--kills", "200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 points, 200 states, under-counts 0, over-counts 0, other 0" in done.stdout


def test_a_crash_while_a_ledger_is_made_leaves_none_or_a_whole_one(scratch):
    """Else a hospital would be left with a ledger that can neither be used nor be made."""
    folder = scratch / "state"
    folder.mkdir()
    code = "import sys; from pathlib import Path; from client.privacy.ledger import Ledger;"
    code += "Ledger.create(Path(sys.argv[1])).close(); open(sys.argv[2], 'a').write('made 0\\n')"
    marks = scratch / "marks"
    ops = crash_walk.record([sys.executable, "-c", code, folder / "ledger.sqlite", marks], folder, marks)
    assert crash_walk.tried_making(ops, folder, scratch) > 10
