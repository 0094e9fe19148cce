"""Is a ledger that was put back, copied or begun again found out, before anything is spent?"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from client.policy import Policy
from client.privacy.desk import Asked, Desk
from client.privacy.heads import NAME
from client.privacy.ledger import Ledger
from client.privacy.statement import trust
from client.site import init_site, load_site
from common.audit import read
from common.errors import LedgerError
from common.heads import countersign, genuine
from common.identity import Identity, fingerprint
from server.heads import HeadBook
from tests.client.crash_rounds import COHORT, EVENT, LIMITS, release_of

RUN = "run-a"


def work(blob):
    """What a round does at the desk: pay, draw, hand over."""

    def done(pay):
        pay(COHORT, EVENT, LIMITS)
        return blob

    return done


class Federation:
    """A real site, and a real server's book of heads; no network."""

    def __init__(self, folder):
        self.folder = folder
        self.site = init_site(folder / "alpha", "alpha", policy=Policy(min_patients=1))
        Ledger.create(self.site.ledger).close()
        self.server = HeadBook(folder / "consortium")

    def round(self, number, site=None, server=None, changes=None):
        """One round as service and server do it: head shown, countersigned, update sent."""
        site, server = site or self.site, server or self.server
        desk = Desk(site)
        server.shown(site.name, desk.head())
        word = replace(server.countersign(site.name, RUN, number), **(changes or {}))
        sent = desk.send(Asked(release_of(number), word), work(f"u{number}".encode()))
        server.proven(site.name, desk.head())
        server.keep()
        return sent

    def charges(self, site=None):
        """How many rounds were paid for."""
        with Ledger((site or self.site).ledger) as ledger:
            return len(ledger.charges)


@pytest.fixture
def federation(tmp_path):
    made = Federation(tmp_path)
    made.round(1)
    made.round(2)
    return made


def refused(code, action):
    with pytest.raises(LedgerError) as refusal:
        action()
    assert refusal.value.code == code
    return refusal.value


def copy_of(site, folder):
    """A site folder as a backup or a cloned machine holds it."""
    shutil.copytree(site.folder, folder)
    return load_site(folder)


def test_a_ledger_put_back_is_refused_by_what_the_site_itself_remembers(federation, tmp_path):
    shutil.copy(federation.site.ledger, tmp_path / "backup")
    federation.round(3)
    federation.round(4)
    shutil.copy(tmp_path / "backup", federation.site.ledger)
    refused("ledger-rollback", lambda: Desk(federation.site).open().__enter__())
    refused("ledger-rollback", lambda: federation.round(5))


def test_a_whole_machine_put_back_is_refused_by_what_the_server_remembers(federation, tmp_path):
    old = copy_of(federation.site, tmp_path / "backup")
    federation.round(3)
    before = federation.charges(old)
    with Desk(old).open():
        pass  # alone it cannot know
    refused("ledger-rollback", lambda: federation.round(4, site=old))
    assert federation.charges(old) == before
    assert "ledger.refused" in [line["event"] for line in read(old.audit)]


def test_of_a_copied_ledger_used_at_two_places_the_second_one_is_refused(federation, tmp_path):
    twin = copy_of(federation.site, tmp_path / "twin")
    federation.round(3)
    # It goes on alone for as long, so that its counter is not behind.
    Desk(twin).send(Asked(release_of(7), alone=True), work(b"x"))
    Desk(twin).send(Asked(release_of(8), alone=True), work(b"x"))
    before = federation.charges(twin)
    refused("ledger-fork", lambda: federation.round(4, site=twin))
    assert federation.charges(twin) == before
    federation.round(4)


def test_a_ledger_begun_again_is_refused_even_when_it_is_as_long(federation):
    federation.site.ledger.unlink()
    Ledger.create(federation.site.ledger).close()
    refused("ledger-rollback", lambda: federation.round(3))
    with Ledger(federation.site.ledger) as ledger:
        for number in range(20, 24):
            ledger.store_update(ledger.charge(release_of(number), COHORT, EVENT, LIMITS), b"x")
    refused("ledger-fork", lambda: federation.round(3))


def test_a_simulated_ledger_that_was_deleted_does_not_begin_again(tmp_path):
    site = init_site(tmp_path / "alpha", "alpha", simulation_seed=1)
    server = HeadBook(tmp_path / "consortium")
    server.shown(site.name, Desk(site).head())
    word = server.countersign(site.name, RUN, 1)
    Desk(site).send(Asked(release_of(1), word), work(b"x"))
    site.ledger.unlink()
    refused("ledger-missing", lambda: Desk(site).open().__enter__())


def test_a_server_that_was_put_back_is_caught_up_with_and_countersigns_again(federation, tmp_path):
    """Law 2: a site ahead of the server's head continues."""
    shutil.copytree(tmp_path / "consortium", tmp_path / "server-backup")
    federation.round(3)
    federation.round(4)
    old = HeadBook(tmp_path / "server-backup")
    word = old.countersign(federation.site.name, RUN, 5)
    with Ledger(federation.site.ledger) as ledger:
        assert word.head.sequence < ledger.head.sequence
    asked = Asked(release_of(5), word)
    Desk(federation.site).send(asked, work(b"x"))
    federation.round(6, server=old)


def test_a_servers_restart_forgets_no_head(federation, tmp_path):
    again = HeadBook(tmp_path / "consortium")
    assert again.countersign("alpha", RUN, 9) == federation.server.countersign("alpha", RUN, 9)


def test_another_key_is_refused_and_the_pin_can_be_let_go_only_by_its_name(federation, tmp_path):
    other = HeadBook(tmp_path / "other")
    refused("ledger-countersign", lambda: federation.round(3, server=other))
    refused("ledger-countersign", lambda: trust(federation.site, other.fingerprint))
    trust(federation.site, federation.server.fingerprint)
    federation.round(3, server=other)
    refused("ledger-countersign", lambda: federation.round(4))


@pytest.mark.parametrize(
    "change", [{"site": "beta"}, {"run": "run-b"}, {"round": 7}, {"signature": "00" * 64}]
)
def test_a_word_for_another_site_run_or_round_is_refused(federation, change):
    before = federation.charges()
    refused("ledger-countersign", lambda: federation.round(3, changes=change))
    assert federation.charges() == before


def test_also_a_repeat_goes_only_to_whoever_countersigned_truly(federation):
    """It costs nothing, but a ledger that was put back holds old updates, too, and a stranger may ask for them."""
    assert federation.round(2) == b"u2"
    refused("ledger-countersign", lambda: federation.round(2, changes={"signature": "00" * 64}))


def test_a_server_that_falls_silent_after_it_countersigned_is_refused(federation):
    desk = Desk(federation.site)
    refused("ledger-countersign", lambda: desk.send(Asked(release_of(3)), lambda pay: b"never"))


def test_the_file_beside_the_ledger_is_held_to_its_signature(federation):
    path = federation.site.state / NAME
    values = json.loads(path.read_text())
    values["newest"]["head"]["sequence"] = 0
    path.write_text(json.dumps(values))
    refused("ledger-countersign", lambda: Desk(federation.site).open().__enter__())
    path.write_text("{")
    refused("ledger-countersign", lambda: Desk(federation.site).open().__enter__())


def test_heads_pins_and_charges_stand_in_the_audit_log(federation):
    lines = [line["event"] for line in read(federation.site.audit)]
    assert lines == ["server.pinned", *["head.countersigned", "ledger.charged"] * 2]
    assert all("refused" not in line["fields"].values() for line in read(federation.site.audit))


def test_an_update_that_is_stored_goes_out_again_as_the_same_bytes_for_nothing(federation):
    before = federation.charges()
    assert federation.round(2) == b"u2"
    assert federation.charges() == before


def test_every_part_of_a_countersignature_is_signed(tmp_path):
    word = countersign(Identity.make(tmp_path / "key"), "alpha", _head(), "run", 3)
    assert genuine(word)
    others = {"site": "beta", "run": "other", "round": 4, "head": replace(_head(), sequence=9),
              "key": Identity.make(tmp_path / "other").public, "signature": "0" * 128}  # fmt: skip
    for name, value in others.items():
        assert not genuine(replace(word, **{name: value})), name
    assert fingerprint(word.key).startswith("sha256:")


def _head():
    from common.messages import LedgerHead  # noqa: PLC0415

    return LedgerHead(3, "sha256:" + "a" * 64)
