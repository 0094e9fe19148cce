"""Masked rounds between enrolled hospitals with real ledgers: heads are countersigned, and both sides swear to each other's logs."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import ClassVar

import pytest
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from client import direct
from client.privacy.ledger import Ledger
from client.privacy.masking_store import NAME
from client.witnessing import Witnessing
from common import envelope, heads, wire, witness
from common.audit import read, verify
from common.errors import SubsetError
from common.identity import Identity
from common.messages import Kind, Masked
from common.plan import replace
from server.audit_book import check_all
from server.journal import read_federation
from server.sightings import read_sighting
from simulations.grid import InProcessGrid, run_on
from tests.enrolled import consortium as made_consortium
from tests.enrolled import enrol
from tests.masked import masked_plan
from tests.server.test_heads import PaidDuties
from tests.toy import toy_service

SITES = ("anna", "bert", "carla", "dora")
PLAN = masked_plan(SITES, rounds=2, deadline_s=10.0)


class Heard(InProcessGrid):
    """A grid that remembers what was answered in training."""

    heard: ClassVar[list[Masked]] = []

    def deliver(self, message):
        replies = super().deliver(message)
        reply = _inside(replies[0])
        if isinstance(reply, Masked):
            self.heard.append(reply)
        return replies


def _inside(message):
    blob = wire.from_records(message.content)
    return wire.unpack(envelope.split(blob)[1] if envelope.is_sealed(blob) else blob)


@pytest.fixture
def world(tmp_path):
    """A consortium and four hospitals after a run of two masked rounds over sealed messages."""
    server = made_consortium(tmp_path)
    services = [toy_service(tmp_path, name, duties=PaidDuties(name)) for name in SITES]
    sites = [service.site for service in services]
    enrol(server, *sites)
    for service in services:
        server.book.invite(service.name, f"code of {service.name}", datetime.now(UTC), datetime.now(UTC))
        service._duties.at(service.site)
        direct.host(service)
    grid = type("Here", (Heard,), {"heard": []})([site.folder for site in sites])
    assert run_on(grid, PLAN, server.folder / "runs" / "toy").status == "completed"
    return server, services, grid


def test_each_masked_update_bears_the_site_s_word_on_both_logs(world):
    _, services, grid = world
    sites = [service.site for service in services]
    assert len(grid.heard) == 2 * len(SITES)
    members = {site.name: Identity.load(site.secrets / "identity.key").public for site in sites}
    for reply in grid.heard:
        assert witness.genuine(reply.audit, members[reply.site])
        assert (reply.audit.site, reply.audit.round) == (reply.site, reply.round)
        assert reply.audit.here.count is None, "how long a hospital's log is stays there"


def test_the_head_under_which_a_masked_round_was_charged_is_countersigned_in_the_next(world):
    _, services, grid = world
    first = {reply.site: reply.head for reply in grid.heard if reply.round == 1}
    for service in services:
        (word,) = [asked.countersignature for asked in service._duties.seen if _is_second(asked)]
        assert heads.genuine(word)
        assert word.site == service.name
        assert word.head == first[word.site], "the newest head that the site has shown"
        assert word.audit is not None


def _is_second(asked):
    return asked.kind is Kind.TRAIN and asked.round == 2


def test_each_side_holds_the_other_s_word_and_the_logs_keep_to_them(world):
    server, services, _ = world
    sites = [service.site for service in services]
    ours = {entry["hash"] for entry in read(server.folder / "audit.jsonl")}
    words = []
    for site in sites:
        theirs = Witnessing(site).words.theirs
        assert witness.genuine(theirs, server.identity.public)
        assert theirs.here.digest in ours
        heard = read_sighting(server.folder, site.name).audit
        assert heard.here.digest in {entry["hash"] for entry in read(site.audit)}
        verify(site.audit)
        words.append(theirs)
    check_all(server, words)


def test_a_hospital_put_back_to_an_older_state_masks_nothing_and_the_others_sum_goes_on(world, tmp_path):
    """Its memory of masks is as old as its ledger, and the ledger is behind the head that the server countersigned."""
    server, services, _ = world
    sites = [service.site for service in services]
    old = tmp_path / "old"
    back = sites[1]
    # Another seed begins with another model: the very same update under another group is refused, too.
    fresh, later = (
        replace(
            masked_plan(SITES, rounds=1, deadline_s=10.0, quorum_sites=3, quorum_grace_s=0.5),
            model={"init_seed": seed},
        )
        for seed in (2, 3)
    )
    old.mkdir()
    for name in ("ledger.sqlite", NAME):
        shutil.copy(back.state / name, old / name)
    grid = Heard([site.folder for site in sites])
    assert run_on(grid, fresh, server.folder / "runs" / "second").trained == SITES
    for name in ("ledger.sqlite", NAME):
        shutil.copy(old / name, back.state / name)
    grid = type("Here", (Heard,), {"heard": []})([site.folder for site in sites])
    record = run_on(grid, later, server.folder / "runs" / "third")
    assert record.rounds[0].refused == {"bert": "ledger-rollback"}
    assert [reply.site for reply in grid.heard] == [name for name in SITES if name != "bert"]
    assert record.trained == tuple(name for name in SITES if name != "bert")


class Leaving(InProcessGrid):
    """A grid from which two of four vanish once their updates are in."""

    def deliver(self, message):
        if message.metadata.dst_node_id > 2 and _inside(message).kind is Kind.CONSENT:
            return [Message(Error(ErrorCode.NODE_UNAVAILABLE, ""), reply_to=message)]
        return super().deliver(message)


def test_a_round_that_is_given_up_stays_charged_and_is_not_charged_again_when_it_goes_on(world):
    server, services, _ = world
    folders = [service.site.folder for service in services]
    plan, out = replace(PLAN, model={"init_seed": 5}), server.folder / "runs" / "again"
    with pytest.raises(SubsetError, match="stays charged"):
        run_on(Leaving(folders), plan, out)
    assert [_charges(service) for service in services] == [3] * 4
    assert read_federation(out / "federation.json").status == "subset"
    assert run_on(InProcessGrid(folders), plan, out).trained == SITES
    assert [_charges(service) for service in services] == [4] * 4, (
        "one more for the second round, none for the first"
    )


def _charges(service):
    with Ledger(service.site.ledger, simulated=True) as ledger:
        return len(ledger.charges)
