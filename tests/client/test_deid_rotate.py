"""Another key: new names for everybody, no fresh budget for anybody, and nobody who left comes back."""

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.deid.lookup import LookupTable, look_up, retired_key, retired_path
from client.deid.pseudonyms import Identity, Pseudonyms
from client.deid.rotate import STEPS, confirm, prepare, rotate
from client.index import Index
from client.intake.ingest import ingest
from client.privacy.ledger import Ledger, Limits, Release
from client.site import Site, check_key, init_site, load_site
from client.site_keys import ROTATING
from client.withdraw import withdraw, withdraw_patient
from common.accounting import DpEventSpec
from common.audit import read, verify
from common.errors import DataError, InputError, LedgerError, SettingsError
from tests.client.intake_files import export, new_site

WHO, GONE = "HOSP-7700000", "HOSP-7700001"
LIMITS = Limits(run_epsilon=8.0, lifetime_epsilon=16.0, delta=1e-5)
SPLIT = "seed-1"


def spend(site: Site) -> float:
    """Charge one round to everybody here; the worst patient's epsilon after it."""
    with Index(site.index) as index, Ledger(site.ledger, simulated=site.simulated) as ledger:
        keys = {row.spend_key for row in index.patients()}
        number = ledger.head.sequence + 1
        release = Release("run-a", number, "sha256:plan", f"sha256:m{number}")
        return ledger.charge(release, keys, DpEventSpec(0.25, 2.0, 4), LIMITS).epsilon


def made(folder: Path, *, simulated: bool) -> None:
    """A hospital with three patients, a run that used them all, and one of them withdrawn."""
    site = init_site(folder / "site", "alder", simulation_seed=3) if simulated else new_site(folder / "site")
    Ledger.create(site.ledger, simulated=simulated).close()
    ingest(site, export(folder / "export", 3), None, workers=1)
    with Index(site.index) as index:
        everybody = [row.pseudonym for row in index.patients()]
        index.record_run("run-a", everybody)
        index.keep_parts(SPLIT, dict.fromkeys(everybody, "test"))
    withdraw_patient(site, GONE)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The hospital, made once; every test works on a copy."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def lived_in(kept):
    def copy(folder: Path, *, simulated: bool = False) -> tuple[Site, Path]:
        template = kept / str(simulated)
        if not template.exists():
            made(template, simulated=simulated)
        shutil.copytree(template, folder, dirs_exist_ok=True)
        return load_site(folder / "site"), folder / "export"

    return copy


def name(site: Site, number: str) -> str:
    return Pseudonyms.of(site).patient(Identity(number))


def test_after_a_rotation_a_patient_has_another_pseudonym_and_the_same_spend(tmp_path, lived_in):
    """The spend key is another key: what was charged before is still charged, and the next round adds to it."""
    site, files = lived_in(tmp_path)
    first, old, ledger = spend(site), name(site, WHO), site.ledger.read_bytes()
    done = rotate(site.folder)
    after = load_site(site.folder)
    assert site.ledger.read_bytes() == ledger
    assert after.spend_key == site.spend_key
    assert (done.withdrawn, done.awaited, done.old_key) == (1, 2, "kept")
    assert ingest(after, files, None, workers=1).accepted == 2
    assert name(after, WHO) != old
    with Index(after.index) as index:
        assert name(after, WHO) in {row.pseudonym for row in index.patients()}
        keys = {row.spend_key for row in index.patients()}
    with Ledger(after.ledger) as opened:
        assert opened.epsilon(LIMITS.delta, keys) == pytest.approx(first)
    assert spend(after) > first


def test_what_a_withdrawn_patient_sends_again_stays_refused(tmp_path, lived_in):
    site, files = lived_in(tmp_path)
    rotate(site.folder)
    after = load_site(site.folder)
    report = ingest(after, files, None, workers=1)
    assert report.refused == {"withdrawn": 1}
    with Index(after.index) as index:
        assert not [row for row in index.images() if row.patient == name(after, GONE)]
        assert index.is_withdrawn(name(after, GONE), Pseudonyms.of(after).spend_key(Identity(GONE)))
    assert LookupTable(after).find(name(after, GONE)) is None


def test_runs_and_parts_come_back_with_the_patient(tmp_path, lived_in):
    """A patient who was in the test part stays there, or the next model would be measured on what it learned."""
    site, files = lived_in(tmp_path)
    rotate(site.folder)
    after = load_site(site.folder)
    with Index(after.index) as index:
        assert index.awaited() == 2
        assert index.patients() == []
    ingest(after, files, None, workers=1)
    with Index(after.index) as index:
        here = {row.pseudonym for row in index.patients()}
        assert index.awaited() == 0
        assert all(index.runs_of(one) == ["run-a"] for one in here)
        assert index.trained_on() == here
        assert index.parts(SPLIT) == dict.fromkeys(here, "test")
        index.check_integrity()


def test_a_patient_who_withdraws_after_the_rotation_is_told_their_runs(tmp_path, lived_in):
    """Also before their images came again; and nothing of them is left in the old look-up table."""
    site, _ = lived_in(tmp_path)
    rotate(site.folder)
    after = load_site(site.folder)
    with sqlite3.connect(retired_path(after)) as table:
        before = table.execute("SELECT COUNT(*) FROM originals").fetchone()[0]
    assert withdraw_patient(after, WHO).runs == ("run-a",)
    with sqlite3.connect(retired_path(after)) as table:
        assert table.execute("SELECT COUNT(*) FROM originals").fetchone()[0] == before - 3


def test_two_rotations_carry_what_one_did(tmp_path, lived_in):
    site, files = lived_in(tmp_path)
    rotate(site.folder)
    ingest(load_site(site.folder), files, None, workers=1)
    confirm(load_site(site.folder))
    rotate(site.folder)
    after = load_site(site.folder)
    assert ingest(after, files, None, workers=1).refused == {"withdrawn": 1}
    with Index(after.index) as index:
        assert index.runs_of(name(after, WHO)) == ["run-a"]


def test_everything_under_the_old_names_is_gone(tmp_path, lived_in):
    site, _ = lived_in(tmp_path)
    old = [name(site, WHO).encode(), name(site, "HOSP-7700002").encode()]
    rotate(site.folder)
    held = [path for path in site.data.rglob("*") if path.is_file()]
    assert not [path for path in held for code in old if code in path.read_bytes()]
    assert not [path for path in held if path.suffix in (".dcm", ".sealed", ".npy")]


@pytest.mark.parametrize("done", range(len(STEPS)))
def test_a_rotation_that_is_cut_short_is_finished_by_the_same_command(tmp_path, lived_in, done):
    """After any number of its steps; until then nothing else starts."""
    site, files = lived_in(tmp_path)
    old = name(site, WHO)
    with Index(site.index) as index:
        memory = index.memory()
    prepare(site, memory)
    for step in STEPS[:done]:
        step(site)
    with pytest.raises(SettingsError) as refused:
        load_site(site.folder)
    assert refused.value.code == "key-rotating"
    assert rotate(site.folder).awaited == 2
    after = load_site(site.folder)
    assert ingest(after, files, None, workers=1).accepted == 2
    assert name(after, WHO) != old
    assert look_up(after, old, "audit").value == WHO


@pytest.mark.parametrize("step", STEPS[:-1])
def test_every_step_can_be_repeated(tmp_path, lived_in, step):
    site, files = lived_in(tmp_path)
    with Index(site.index) as index:
        memory = index.memory()
    prepare(site, memory)
    for one in STEPS[: STEPS.index(step) + 1]:
        one(site)
    step(site)
    rotate(site.folder)
    assert ingest(load_site(site.folder), files, None, workers=1).accepted == 2


def test_what_was_prepared_and_not_begun_is_made_again(tmp_path, lived_in):
    """Killed before the point of no return: the site works on with its key, and a rotation begins afresh."""
    site, _ = lived_in(tmp_path)
    with Index(site.index) as index:
        prepare(site, index.memory())
    (site.secrets / ROTATING).unlink()
    assert load_site(site.folder).pseudonym_key == site.pseudonym_key
    with Index(site.index) as index:
        assert len(index.images()) == 2
    assert rotate(site.folder).awaited == 2


def test_a_withdrawal_that_would_be_forgotten_stops_the_rotation(tmp_path, lived_in):
    """Withdrawn by a pseudonym that was never here: under another key nobody could know them again."""
    site, _ = lived_in(tmp_path)
    withdraw(site, "P" + "0" * 32)
    with pytest.raises(DataError) as refused:
        rotate(site.folder)
    assert refused.value.code == "rotate-nameless"
    assert load_site(site.folder).pseudonym_key == site.pseudonym_key


def test_naming_them_by_number_lets_the_rotation_go_on(tmp_path, lived_in):
    site, _ = lived_in(tmp_path)
    withdraw(site, name(site, "HOSP-9"))
    withdraw_patient(site, "HOSP-9")
    assert rotate(site.folder).withdrawn == 2


def test_the_old_key_waits_for_a_person_or_the_policy(tmp_path, lived_in):
    site, files = lived_in(tmp_path)
    rotate(site.folder)
    after = load_site(site.folder)
    with pytest.raises(InputError, match="no image has been taken in"):
        confirm(after)
    with pytest.raises(InputError, match="still kept"):
        rotate(site.folder)
    ingest(after, files, None, workers=1)
    assert confirm(after) == 0
    assert not retired_key(after).exists()
    assert not retired_path(after).exists()
    with pytest.raises(InputError):
        look_up(after, name(site, WHO), "audit")


def test_a_policy_that_keeps_no_old_key_is_obeyed(tmp_path, lived_in):
    site, _ = lived_in(tmp_path)
    settings = site.folder / "site.toml"
    settings.write_text(settings.read_text() + '\n[deid]\nretired_key = "destroy"\n')
    assert rotate(site.folder).old_key == "destroyed"
    assert not retired_key(site).exists()
    assert not retired_path(site).exists()


def test_a_process_that_holds_the_old_key_takes_nothing_in(tmp_path, lived_in):
    """A listener that ran through the rotation would write the old names again."""
    site, files = lived_in(tmp_path)
    rotate(site.folder)
    with pytest.raises(SettingsError) as refused:
        ingest(site, files, None, workers=1)
    assert refused.value.code == "key-changed"
    check_key(load_site(site.folder))


def test_a_process_that_runs_through_a_rotation_that_was_cut_short_takes_nothing_in(tmp_path, lived_in):
    """The old key is still in its place then, and what would be taken in would be lost with it."""
    site, files = lived_in(tmp_path)
    (site.secrets / ROTATING).write_text("{}")
    with pytest.raises(SettingsError) as refused:
        ingest(site, files, None, workers=1)
    assert refused.value.code == "key-rotating"


def test_no_rotation_while_a_round_is_under_way(tmp_path, lived_in):
    site, _ = lived_in(tmp_path)
    with Ledger(site.ledger), pytest.raises(LedgerError) as refused:
        rotate(site.folder)
    assert refused.value.code == "ledger-locked"
    assert not (site.secrets / ROTATING).exists()


def test_a_virtual_hospital_rotates_too_and_always_the_same_way(tmp_path, lived_in):
    keys = []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        site, files = lived_in(tmp_path / run, simulated=True)
        rotate(site.folder)
        after = load_site(site.folder)
        assert ingest(after, files, None, workers=1).refused == {"withdrawn": 1}
        keys.append(after.pseudonym_key)
        assert keys[-1] != site.pseudonym_key
    assert keys[0] == keys[1]


def test_the_rotation_is_in_the_audit_log_and_the_chain_holds(tmp_path, lived_in):
    site, _ = lived_in(tmp_path)
    rotate(site.folder)
    said = [e["fields"] for e in read(site.audit) if e["event"] == "deid.rotate_key"]
    assert said == [{"status": "old-key-kept"}]
    verify(site.audit)


def test_keys_are_readable_by_their_owner_only(tmp_path, lived_in):
    site, _ = lived_in(tmp_path)
    rotate(site.folder)
    keys = sorted(site.secrets.glob("*.key"))
    assert [path.name for path in keys] == ["pseudonym.key", "pseudonym.retired.key", "spend.key"]
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}


def test_the_command_asks_first_and_says_what_is_left_to_do(tmp_path, lived_in):
    site, files = lived_in(tmp_path)
    runner = CliRunner()
    asked = runner.invoke(app, ["deid", "rotate-key", "--site", str(site.folder)], input="n\n")
    assert asked.exit_code != 0
    assert "2 images" in asked.output
    assert load_site(site.folder).pseudonym_key == site.pseudonym_key
    done = runner.invoke(app, ["deid", "rotate-key", "--yes", "--json", "--site", str(site.folder)])
    assert json.loads(done.stdout) == {"awaited": 2, "old_key": "kept", "withdrawn": 1}
    ingest(load_site(site.folder), files, None, workers=1)
    last = runner.invoke(app, ["deid", "rotate-key", "--confirm", "--site", str(site.folder)])
    assert last.exit_code == 0
    assert "destroyed" in last.stdout


@pytest.mark.parametrize("place", ["data/secrets", "data", "data/../data/keys"])
def test_keys_inside_the_data_are_refused_by_name(tmp_path, place):
    site = new_site(tmp_path)
    settings = site.folder / "site.toml"
    text = settings.read_text().replace('name = "st-anna"', f'name = "st-anna"\nsecrets = "{place}"')
    settings.write_text(text)
    with pytest.raises(SettingsError, match=r"site\.secrets"):
        load_site(site.folder)


def test_a_link_out_of_the_way_does_not_hide_keys_in_the_data(tmp_path):
    site = new_site(tmp_path)
    site.secrets.rename(site.data / "keys")
    site.secrets.symlink_to(site.data / "keys")
    with pytest.raises(SettingsError, match="inside the data folder"):
        load_site(site.folder)


def test_without_its_key_nothing_starts(tmp_path):
    site = new_site(tmp_path)
    (site.secrets / "pseudonym.key").unlink()
    with pytest.raises(SettingsError, match="the key is missing"):
        load_site(site.folder)
    with pytest.raises(SettingsError, match="the key is missing"):
        ingest(replace(site), export(tmp_path / "export", 1), None, workers=1)
