"""Can a patient's budget be spent twice, forgotten, or spent after it is gone?"""

from __future__ import annotations

import math
import multiprocessing
import shutil
import sqlite3
import threading
from dataclasses import replace

import pytest

from client.policy import Policy
from client.privacy.ledger import Ledger, Limits, Release
from client.privacy.plan import DpPlan
from common.accounting import DpEventSpec, compose
from common.errors import LedgerError, WrongOrder
from tests.client.few_patients import small_plan

DELTA = 1e-5
EVENT = DpEventSpec(0.25, 2.0, 4)
OPEN = DpEventSpec(1.0, 0.0, 1)
COHORT = [f"key-{i:03d}" for i in range(30)]
WIDE = Limits(run_epsilon=8.0, lifetime_epsilon=16.0, delta=DELTA)


def release(number: int = 1, run: str = "run-a", model: str = "sha256:m") -> Release:
    return Release(run, number, "sha256:plan", f"{model}{number}")


@pytest.fixture
def path(tmp_path):
    Ledger.create(tmp_path / "ledger.sqlite", simulated=True).close()
    return tmp_path / "ledger.sqlite"


def spent(code: str, action) -> LedgerError:
    with pytest.raises(LedgerError) as refusal:
        action()
    assert refusal.value.code == code
    return refusal.value


def test_a_missing_ledger_is_never_made_by_opening_it(tmp_path):
    spent("ledger-missing", lambda: Ledger(tmp_path / "ledger.sqlite"))
    assert not (tmp_path / "ledger.sqlite").exists()


def test_a_ledger_is_not_started_afresh(path):
    spent("ledger-exists", lambda: Ledger.create(path, simulated=True))


def test_simulated_and_real_do_not_mix(path):
    spent("ledger-simulated", lambda: Ledger(path, simulated=False))


def test_spend_survives_reopening_and_is_the_composition_of_all_rounds(path):
    for number in (1, 2, 3):
        with Ledger(path, simulated=True) as ledger:
            receipt = ledger.charge(release(number), COHORT, EVENT, WIDE)
    assert receipt.epsilon == compose([EVENT] * 3, DELTA)
    with Ledger(path, simulated=True) as ledger:
        assert ledger.epsilon(DELTA) == compose([EVENT] * 3, DELTA)
        assert ledger.head.sequence == 3
        assert [c.patients for c in ledger.charges] == [30, 30, 30]


def test_the_charge_is_on_disk_when_the_call_returns(path, tmp_path):
    """A copy of the file taken right then, as a crash would leave it, knows the charge."""
    with Ledger(path, simulated=True) as ledger:
        ledger.charge(release(), COHORT, EVENT, WIDE)
        shutil.copy(path, tmp_path / "after-crash.sqlite")
    with Ledger(tmp_path / "after-crash.sqlite", simulated=True) as ledger:
        assert ledger.epsilon(DELTA) == compose([EVENT], DELTA)


def test_the_run_budget_ends_the_run_and_the_refusal_spends_nothing(path):
    tight = replace(WIDE, run_epsilon=compose([EVENT] * 2, DELTA))
    with Ledger(path, simulated=True) as ledger:
        ledger.charge(release(1), COHORT, EVENT, tight)
        ledger.charge(release(2), COHORT, EVENT, tight)
        head = ledger.head
        error = spent("ledger-spent", lambda: ledger.charge(release(3), COHORT, EVENT, tight))
        assert "run epsilon" in error.rule
        assert ledger.head == head


def test_a_new_run_or_study_name_resets_nothing(path):
    tight = replace(WIDE, lifetime_epsilon=compose([EVENT] * 2, DELTA))
    with Ledger(path, simulated=True) as ledger:
        ledger.charge(release(1, "run-a"), COHORT, EVENT, tight)
        ledger.charge(release(1, "run-b"), COHORT, EVENT, tight)
        error = spent("ledger-spent", lambda: ledger.charge(release(1, "run-c"), COHORT, EVENT, tight))
        assert "lifetime" in error.rule


def test_one_patient_more_does_not_free_the_others(path):
    tight = replace(WIDE, lifetime_epsilon=compose([EVENT] * 2, DELTA))
    with Ledger(path, simulated=True) as ledger:
        ledger.charge(release(1), COHORT, EVENT, tight)
        ledger.charge(release(2), [*COHORT, "newcomer"], EVENT, tight)
        spent("ledger-spent", lambda: ledger.charge(release(3), [*COHORT, "other"], EVENT, tight))
        spent("ledger-spent", lambda: ledger.charge(release(3), ["newcomer", COHORT[7]], EVENT, tight))
        ledger.charge(release(3), ["newcomer", "other"], EVENT, tight)


def test_each_patient_is_charged_for_their_own_history(path):
    other = DpEventSpec(0.5, 3.0, 2)
    with Ledger(path, simulated=True) as ledger:
        ledger.charge(release(1), ["a", "b"], EVENT, WIDE)
        ledger.charge(release(2, "run-b"), ["b", "c"], other, WIDE)
        assert ledger.epsilon(DELTA, ["a"]) == compose([EVENT], DELTA)
        assert ledger.epsilon(DELTA, ["c"]) == compose([other], DELTA)
        assert ledger.epsilon(DELTA, ["a", "b", "c"]) == compose([EVENT, other], DELTA)
        assert ledger.epsilon(DELTA, ["b"], run="run-b") == compose([other], DELTA)
        assert ledger.epsilon(DELTA, ["stranger"]) == 0.0


def test_a_looser_delta_later_frees_nothing(path):
    tight = replace(WIDE, delta=1e-7, lifetime_epsilon=compose([EVENT], 1e-7))
    with Ledger(path, simulated=True) as ledger:
        ledger.charge(release(1), COHORT, EVENT, tight)
        loose = replace(tight, delta=1e-3)
        spent("ledger-spent", lambda: ledger.charge(release(1, "run-b"), COHORT, EVENT, loose))


def test_a_repeat_tells_what_its_run_has_cost_and_what_all_have(path):
    with Ledger(path, simulated=True) as ledger:
        ledger.store_update(ledger.charge(release(), COHORT, EVENT, WIDE), b"update")
        ledger.charge(release(1, "run-b"), COHORT, EVENT, WIDE)
        again = ledger.charge(release(), COHORT, EVENT, WIDE)
    assert again.repeat
    assert (again.run_epsilon, again.epsilon) == (compose([EVENT], DELTA), compose([EVENT] * 2, DELTA))


def test_a_stored_release_is_replayed_byte_for_byte_and_for_free(path):
    with Ledger(path, simulated=True) as ledger:
        first = ledger.charge(release(), COHORT, EVENT, WIDE)
        ledger.store_update(first, b"protected")
    with Ledger(path, simulated=True) as ledger:
        before = ledger.head
        again = ledger.charge(release(), COHORT, EVENT, WIDE)
        assert again.repeat
        assert again.epsilon == first.epsilon
        assert ledger.replay(release()) == b"protected"
        assert ledger.head == before


@pytest.mark.parametrize("change", [{"round": 2}, {"run": "run-b"}, {"plan_digest": "sha256:x"},
                                    {"model_digest": "sha256:x"}, {"roster_digest": "sha256:x"}])  # fmt: skip
def test_anything_else_is_charged_anew(path, change):
    with Ledger(path, simulated=True) as ledger:
        ledger.store_update(ledger.charge(release(), COHORT, EVENT, WIDE), b"x")
        receipt = ledger.charge(replace(release(), **change), COHORT, EVENT, WIDE)
        assert not receipt.repeat
        assert ledger.epsilon(DELTA) == compose([EVENT] * 2, DELTA)


def test_a_charge_whose_training_failed_is_not_given_back(path):
    """No update was stored, so the next attempt draws fresh noise, and fresh noise costs."""
    with Ledger(path, simulated=True) as ledger:
        ledger.charge(release(), COHORT, EVENT, WIDE)
    with Ledger(path, simulated=True) as ledger:
        assert ledger.replay(release()) is None
        assert not ledger.charge(release(), COHORT, EVENT, WIDE).repeat
        assert ledger.epsilon(DELTA) == compose([EVENT] * 2, DELTA)


def test_an_update_without_a_charge_or_a_second_one_is_a_programmers_error(path):
    with Ledger(path, simulated=True) as ledger:
        receipt = ledger.charge(release(), COHORT, EVENT, WIDE)
        ledger.store_update(receipt, b"one")
        for wrong in (receipt, replace(receipt, sequence=99), replace(receipt, repeat=True)):
            with pytest.raises(WrongOrder):
                ledger.store_update(wrong, b"two")
        assert ledger.replay(release()) == b"one"


def test_old_bytes_are_dropped_and_old_spend_is_not(path):
    with Ledger(path, simulated=True) as ledger:
        for number in (1, 2, 3, 4):
            ledger.store_update(ledger.charge(release(number), COHORT, EVENT, WIDE), bytes([number]))
        assert [ledger.replay(release(n)) for n in (1, 2, 3, 4)] == [None, None, b"\x03", b"\x04"]
    with Ledger(path, simulated=True) as ledger:
        assert ledger.replay(release(1)) is None
        assert ledger.replay(release(4)) == b"\x04"
        assert ledger.epsilon(DELTA) == compose([EVENT] * 4, DELTA)


def test_a_non_private_release_needs_the_policys_word_and_is_infinite(path):
    with Ledger(path, simulated=True) as ledger:
        spent("ledger-non-private", lambda: ledger.charge(release(), COHORT, OPEN, WIDE))
        allowed = replace(WIDE, allow_non_private=True)
        assert ledger.charge(release(), COHORT, OPEN, allowed).epsilon == math.inf
    with Ledger(path, simulated=True) as ledger:
        assert ledger.epsilon(DELTA) == math.inf
        spent("ledger-spent", lambda: ledger.charge(release(2), COHORT, EVENT, WIDE))
        ledger.charge(release(2), COHORT, EVENT, allowed)


def test_an_empty_cohort_is_refused(path):
    with Ledger(path, simulated=True) as ledger:
        spent("ledger-empty", lambda: ledger.charge(release(), [], EVENT, WIDE))


def test_the_same_process_cannot_open_it_twice(path):
    with Ledger(path, simulated=True):
        spent("ledger-locked", lambda: Ledger(path, simulated=True))
    Ledger(path, simulated=True).close()


def _open_elsewhere(path, answer):
    try:
        Ledger(path, simulated=True).close()
        answer.put("opened")
    except LedgerError as error:
        answer.put(error.code)


def test_a_second_process_is_kept_out(path):
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    with Ledger(path, simulated=True):
        process = context.Process(target=_open_elsewhere, args=(path, answer))
        process.start()
        assert answer.get(timeout=60) == "ledger-locked"
        process.join()


def test_threads_of_one_process_may_share_it(path):
    with Ledger(path, simulated=True) as ledger:
        workers = [
            threading.Thread(target=lambda n=n: ledger.charge(release(n), COHORT, EVENT, WIDE))
            for n in (1, 2, 3, 4)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert ledger.epsilon(DELTA) == compose([EVENT] * 4, DELTA)
    Ledger(path, simulated=True).close()


def charged(path) -> None:
    with Ledger(path, simulated=True) as ledger:
        for number in (1, 2):
            ledger.store_update(ledger.charge(release(number), COHORT, EVENT, WIDE), b"update")


@pytest.mark.parametrize(
    "crime",
    [
        "UPDATE entries SET body = replace(body, '\"steps\":4', '\"steps\":1') WHERE seq = 1",
        "DELETE FROM entries WHERE seq = 1",
        "DELETE FROM entries WHERE seq = 4",
        "UPDATE entries SET seq = 9 WHERE seq = 4",
        "DELETE FROM members WHERE spend_key = 'key-007'",
        "UPDATE members SET spend_key = 'someone' WHERE spend_key = 'key-007'",
        "UPDATE meta SET value = 'other' WHERE key = 'identity'",
        "UPDATE meta SET value = 'other' WHERE key = 'schema'",
        "DROP TABLE members",
    ],
)
def test_a_row_that_was_tampered_with_is_found_at_opening(path, crime):
    charged(path)
    db = sqlite3.connect(path)
    db.execute(crime)
    db.commit()
    db.close()
    with pytest.raises(LedgerError) as refusal:
        Ledger(path, simulated=True)
    assert refusal.value.code in ("ledger-corrupt", "ledger-write")


def test_a_stored_update_that_changed_is_not_sent(path):
    charged(path)
    db = sqlite3.connect(path)
    db.execute("UPDATE updates SET blob = x'00'")
    db.commit()
    db.close()
    with Ledger(path, simulated=True) as ledger:
        spent("ledger-corrupt", lambda: ledger.replay(release(2)))


@pytest.mark.parametrize("content", [b"", b"not a ledger at all" * 100])
def test_a_file_that_is_no_ledger_is_corrupt(path, content):
    path.write_bytes(content)
    with pytest.raises(LedgerError) as refusal:
        Ledger(path, simulated=True)
    assert refusal.value.code in ("ledger-corrupt", "ledger-write")


@pytest.mark.parametrize("what", [b"key-007", b"run-a", b"sha256:"])
def test_one_flipped_bit_in_what_matters_is_found(path, what):
    charged(path)
    raw = bytearray(path.read_bytes())
    raw[raw.rfind(what) + 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(LedgerError):
        Ledger(path, simulated=True)


def test_a_disk_that_takes_no_more_refuses_and_changes_nothing(path):
    """SQLite's own page limit stands in for the full disk."""
    with Ledger(path, simulated=True) as ledger:
        ledger.charge(release(1), COHORT, EVENT, WIDE)
        ledger._file._db.execute("PRAGMA max_page_count = 1")
        receipt = None
        with pytest.raises(LedgerError) as refusal:
            receipt = ledger.charge(release(2), [f"new-{i}" * 20 for i in range(2000)], EVENT, WIDE)
        assert refusal.value.code == "ledger-write"
        assert receipt is None
        spent("ledger-write", lambda: ledger.charge(release(2), COHORT, EVENT, WIDE))
    with Ledger(path, simulated=True) as ledger:
        assert ledger.epsilon(DELTA) == compose([EVENT], DELTA)


def test_a_whole_plan_fits_its_own_budget_exactly_and_not_one_round_more(path):
    plan = small_plan(privacy={"mode": "patient-dp", "epsilon": 3.0, "spare_rounds": 1})
    dp, limits = DpPlan.from_plan(plan, 50), Limits.of(Policy(), plan)
    with Ledger(path, simulated=True) as ledger:
        for number in range(1, dp.rounds + 1):
            receipt = ledger.charge(release(number), COHORT, dp.round_event, limits)
        assert 2.9 < receipt.epsilon <= 3.0
        spent("ledger-spent", lambda: ledger.charge(release(99), COHORT, dp.round_event, limits))


def test_the_refusal_names_no_patient(path):
    tight = replace(WIDE, run_epsilon=0.01)
    with Ledger(path, simulated=True) as ledger:
        error = spent("ledger-spent", lambda: ledger.charge(release(), COHORT, EVENT, tight))
    assert not any(key in str(error) for key in COHORT)
