"""Does a ledger that is not fit refuse by name, with real files and processes?"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.policy import Policy
from client.privacy.ledger import Ledger, Limits, Memory, Release
from client.privacy.limits import Span, Usage
from common.accounting import DpEventSpec, compose
from common.errors import LedgerError
from tests.client.few_patients import small_plan
from tests.limited import limited

DELTA = 1e-5
EVENT = DpEventSpec(0.25, 2.0, 4)
COHORT = [f"key-{i:03d}" for i in range(30)]
WIDE = Limits(run_epsilon=8.0, lifetime_epsilon=16.0, delta=DELTA)
NOON = datetime(2030, 6, 1, 12, tzinfo=UTC)
NOBODY = 65534


def release(number=1, run="run-a"):
    return Release(run, number, "sha256:plan", f"sha256:m{number}")


def refused(code, action):
    with pytest.raises(LedgerError) as refusal:
        action()
    assert refusal.value.code == code
    return refusal.value


@pytest.fixture
def path(tmp_path):
    (tmp_path / "state").mkdir()
    path = tmp_path / "state" / "ledger.sqlite"
    Ledger.create(path).close()
    return charged(path, 1, 2)


def charged(path, *numbers, size=7):
    with Ledger(path) as ledger:
        for number in numbers:
            ledger.store_update(ledger.charge(release(number), COHORT, EVENT, WIDE), b"update" * size)
    return path


def at(path, when, number, limits=WIDE, run="run-a"):
    """One charge at a time of the test's choosing."""
    with Ledger(path, clock=lambda: when) as ledger:
        return ledger.charge(release(number, run), COHORT, EVENT, limits)


# the year, and the clock


def test_a_year_is_a_rate_and_old_spend_still_counts_for_life(path):
    shutil.rmtree(path.parent)
    Ledger.create(path).close()
    once, thrice = compose([EVENT], DELTA), compose([EVENT] * 3, DELTA)
    limits = replace(WIDE, yearly_epsilon=once, lifetime_epsilon=thrice)
    at(path, NOON, 1, limits)
    error = refused("ledger-spent", lambda: at(path, NOON + timedelta(days=364), 2, limits, "run-b"))
    assert "yearly" in error.rule
    at(path, NOON + timedelta(days=365, minutes=1), 2, limits, "run-b")
    at(path, NOON + timedelta(days=731), 3, limits, "run-c")
    error = refused("ledger-spent", lambda: at(path, NOON + timedelta(days=1100), 4, limits, "run-d"))
    assert "lifetime" in error.rule


def test_no_window_of_a_year_holds_more_than_the_limit_wherever_it_begins(path):
    """Two charges either side of a new year are within one window."""
    shutil.rmtree(path.parent)
    Ledger.create(path).close()
    limits = replace(WIDE, yearly_epsilon=compose([EVENT], DELTA))
    at(path, datetime(2030, 12, 31, 23, tzinfo=UTC), 1, limits)
    refused("ledger-spent", lambda: at(path, datetime(2031, 1, 1, 1, tzinfo=UTC), 2, limits, "run-b"))


@pytest.mark.parametrize("meanwhile", ["asked", "refused"])
def test_a_clock_that_ran_ahead_and_was_set_right_has_freed_nothing_of_the_year(path, meanwhile):
    """Nothing was charged while it was wrong, so it is not behind the last charge, and is not refused as such."""
    shutil.rmtree(path.parent)
    Ledger.create(path).close()
    limits, clock = replace(WIDE, yearly_epsilon=compose([EVENT], DELTA)), [NOON]
    with Ledger(path, clock=lambda: clock[0]) as ledger:
        ledger.charge(release(1), COHORT, EVENT, limits)
        clock[0] = NOON + timedelta(days=800)
        if meanwhile == "asked":
            ledger.usage(limits)
        else:
            none = replace(limits, lifetime_epsilon=0.01)
            refused("ledger-spent", lambda: ledger.charge(release(2, "run-b"), COHORT, EVENT, none))
        clock[0] = NOON + timedelta(days=1)
        error = refused("ledger-spent", lambda: ledger.charge(release(3, "run-c"), COHORT, EVENT, limits))
        assert "yearly" in error.rule


def test_a_clock_set_back_is_refused_and_frees_nothing(path):
    at(path, NOON, 3)
    before = Ledger(path)
    before.close()
    refused("ledger-clock", lambda: at(path, NOON - timedelta(minutes=3), 4))
    receipt = at(path, NOON - timedelta(minutes=1), 4)
    with Ledger(path) as ledger:
        assert ledger.charges[-1].time == NOON.isoformat(timespec="seconds")
        assert ledger.head.sequence == receipt.sequence == before.head.sequence + 1


def test_the_real_clock_is_refused_when_the_last_charge_lies_ahead_of_it(path):
    """No clock of a test: a charge was made while the machine's clock stood too late."""
    at(path, datetime.now(UTC) + timedelta(days=400), 3)
    with Ledger(path) as ledger:
        refused("ledger-clock", lambda: ledger.charge(release(4), COHORT, EVENT, WIDE))
        assert ledger.replay(release(2)) is not None


def test_a_looser_delta_later_frees_nothing_of_the_year(path):
    """As of life: what was promised at a small delta within the window is counted there at that delta."""
    shutil.rmtree(path.parent)
    Ledger.create(path).close()
    limits = replace(WIDE, delta=1e-7, yearly_epsilon=compose([EVENT], 1e-7), lifetime_epsilon=1000.0)
    at(path, NOON, 1, limits)
    loose = replace(limits, delta=1e-3)
    error = refused("ledger-spent", lambda: at(path, NOON, 2, loose, "run-b"))
    assert "yearly" in error.rule
    at(path, NOON + timedelta(days=366), 2, loose, "run-b")


@pytest.mark.parametrize(("spent", "told"), [(0.799, False), (0.8, True), (1.0, True)])
def test_four_fifths_are_four_fifths(spent, told):
    assert Usage(Span.YEAR, 5 * spent, 5.0).near is told


def test_from_four_fifths_of_a_limit_on_people_are_told(path):
    limits = Limits(compose([EVENT] * 5, DELTA), 1000.0, DELTA)
    with Ledger(path) as ledger:
        told = [ledger.charge(release(n), COHORT, EVENT, limits).warnings for n in (3, 4)]
    assert not told[0]
    assert [usage.span for usage in told[1]] == [Span.RUN]


@pytest.mark.parametrize("word", [True, False])
def test_every_limit_is_the_policys_and_a_plan_only_tightens_its_own_run(word):
    plan = small_plan(privacy={"mode": "patient-dp", "epsilon": 3.0, "delta": 1e-6})
    own = Policy(
        max_epsilon_per_run=5.0,
        max_epsilon_per_year=7.0,
        max_epsilon_lifetime=9.0,
        max_delta=1e-4,
        allow_non_private=word,
    )
    assert Limits.of(own, plan) == Limits(3.0, 9.0, 1e-6, word, 7.0)
    assert Limits.of(replace(own, max_epsilon_per_run=2.0), plan).run_epsilon == 2.0
    assert Limits.of_policy(own) == Limits(5.0, 9.0, 1e-4, word, 7.0)


# names that reset nothing


def test_a_renamed_run_and_a_renamed_study_have_the_same_patients(path):
    limits = replace(WIDE, lifetime_epsilon=compose([EVENT] * 2, DELTA))
    with Ledger(path) as ledger:
        for other in ({"run": "run-new"}, {"plan_digest": "sha256:renamed-study"}):
            renamed = replace(release(9), **other)
            error = refused("ledger-spent", lambda r=renamed: ledger.charge(r, COHORT, EVENT, limits))
            assert "lifetime" in error.rule


# files


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_ledger_is_refused(path, kept):
    size = int(path.stat().st_size * kept)
    os.truncate(path, size)
    with pytest.raises(LedgerError) as refusal:
        Ledger(path)
    assert refusal.value.code in ("ledger-corrupt", "ledger-write")


def test_a_journal_of_another_ledger_is_refused_and_destroys_nothing(path, tmp_path):
    """SQLite alone would roll it back into ours."""
    other = tmp_path / "other" / "ledger.sqlite"
    Ledger.create(other).close()
    charged(other, 1, size=5000)
    _hot_journal(other, path)
    before = path.read_bytes()
    refused("ledger-journal", lambda: Ledger(path))
    assert path.read_bytes() == before
    path.with_name("ledger.sqlite-journal").unlink()
    with Ledger(path) as ledger:
        assert len(ledger.charges) == 2


def test_the_ledgers_own_journal_is_rolled_back(path, tmp_path):
    """As after a power failure in the middle of a commit: the charge that was not acknowledged is gone."""
    copy = tmp_path / "copy" / "ledger.sqlite"
    copy.parent.mkdir()
    shutil.copy(path, copy)
    with Ledger(path) as ledger:
        head = ledger.head
    _hot_journal(copy, copy)
    with Ledger(copy) as ledger:
        assert ledger.head == head


@pytest.mark.parametrize("kind", ["-wal", "-shm"])
def test_a_write_ahead_log_is_never_ours(path, kind):
    path.with_name("ledger.sqlite" + kind).write_bytes(b"anything")
    refused("ledger-journal", lambda: Ledger(path))


def _hot_journal(of, beside):
    """The journal of a transaction of one ledger that was cut short, laid beside another."""
    code = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "db.execute('PRAGMA cache_size = 1'); db.execute('PRAGMA cache_spill = 1'); db.execute('BEGIN EXCLUSIVE');"
        'db.execute("UPDATE entries SET body = body || hex(zeroblob(20000))");'
        "db.execute('UPDATE updates SET blob = zeroblob(30000)'); os._exit(0)"
    )
    work = of.with_name("work.sqlite")
    shutil.copy(of, work)
    subprocess.run([sys.executable, "-c", code, work], check=True)
    journal = work.with_name("work.sqlite-journal")
    assert journal.stat().st_size > 512
    if of == beside:
        shutil.copy(work, beside)
    shutil.copy(journal, beside.with_name(beside.name + "-journal"))


_CHARGE = (
    "import sys; from pathlib import Path; from tests.client.test_ledger_refusals import *\n"
    "try:\n"
    "    with Ledger(Path(sys.argv[1])) as ledger:\n"
    "        ledger.charge(release(8), [f'new-{i}' * 9 for i in range(3000)], EVENT, WIDE)\n"
    "        print('charged')\n"
    "except LedgerError as error: print(error.code)\n"
)


def _elsewhere(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_full_disk_refuses_and_the_ledger_is_as_before(path):
    with Ledger(path) as ledger:
        head = ledger.head
    command = [sys.executable, "-c", _CHARGE, path]
    assert _elsewhere(limited(path.stat().st_size + 4096, command)) == "ledger-write"
    with Ledger(path) as ledger:
        assert ledger.head == head
    assert _elsewhere(command) == "charged"


def test_a_ledger_that_can_only_be_read_is_refused():
    """As another user, because an administrator may write anything."""
    if os.getuid():
        pytest.skip("only an administrator may become another user")
    code = (
        "import os, sys; from pathlib import Path; from tests.client.test_ledger_refusals import *\n"
        f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "try:\n    Ledger(Path(sys.argv[1]))\n    print('opened')\n"
        "except LedgerError as error: print(error.code)\n"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder) / "ledger.sqlite"
        Ledger.create(path).close()
        assert _elsewhere([sys.executable, "-c", code, path]) == "ledger-write", "not even to be seen"
        Path(folder).chmod(0o755)
        assert _elsewhere([sys.executable, "-c", code, path]) == "ledger-readonly", "the folder"
        Path(folder).chmod(0o777)
        path.with_name("ledger.sqlite.lock").chmod(0o666)
        assert _elsewhere([sys.executable, "-c", code, path]) == "ledger-readonly", "the file"


# what a process may remember


def test_what_was_verified_is_believed_again_only_while_nobody_else_wrote(path):
    memory = Memory()
    for _ in range(2):
        Ledger(path, memory=memory).close()
    with Ledger(path, memory=memory) as ledger:
        assert ledger._file.trusted
    db = sqlite3.connect(path)
    db.execute("UPDATE entries SET body = replace(body, '\"steps\":4', '\"steps\":1') WHERE seq = 1")
    db.commit()
    db.close()
    refused("ledger-corrupt", lambda: Ledger(path, memory=memory))


def test_with_and_without_memory_the_spend_is_the_same(path):
    memory = Memory()
    for number in range(3, 7):
        with Ledger(path, memory=memory) as ledger:
            ledger.store_update(ledger.charge(release(number), COHORT, EVENT, WIDE), b"u")
    with Ledger(path, memory=memory) as warm:
        assert warm._file.trusted
        kept = (
            warm.head,
            warm.epsilon(DELTA),
            warm.charges,
            warm.replay(release(6)),
            warm.replay(release(4)),
        )
    with Ledger(path) as cold:
        assert kept == (
            cold.head, cold.epsilon(DELTA), cold.charges, cold.replay(release(6)), cold.replay(release(4))
        )  # fmt: skip
