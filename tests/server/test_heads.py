"""Does a whole federation notice a ledger that went back, over the same messages as in a hospital?"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from dataclasses import replace

import pytest

from client.privacy.desk import Asked, Desk
from client.privacy.ledger import Ledger, Limits, Release
from common import wire
from common.accounting import DpEventSpec
from common.arrays import digest
from common.audit import read
from common.errors import ConsiliumError
from common.heads import genuine
from common.messages import LedgerHead, Update
from server.heads import HEADS, KEY, HeadBook
from simulations.grid import InProcessGrid, run_in_process, run_on
from tests.toy import ToyDuties, toy_plan, toy_service

LIMITS = Limits(50.0, 50.0, 1e-5)
EVENT = DpEventSpec(1.0, 60.0, 1)
SITES = ("alpha", "beta", "gamma")


class PaidDuties(ToyDuties):
    """The toy's training, paid for at a real desk."""

    def at(self, site):
        """Where the desk's ledger lies."""
        self.desk = Desk(site)
        return self

    def survey(self, instruction, plan):
        return replace(super().survey(instruction, plan), head=self.desk.head())

    def train(self, instruction, plan):
        release = Release(instruction.run, instruction.round, plan.digest, digest(instruction.arrays))

        def work(pay):
            receipt = pay([f"{self.name}-{n}" for n in range(5)], EVENT, LIMITS)
            return wire.pack(replace(super(PaidDuties, self).train(instruction, plan), head=receipt.head))

        update = wire.unpack(self.desk.send(Asked(release, instruction.countersignature), work))
        assert isinstance(update, Update)
        return update


def federation(folder):
    services = []
    for name in SITES:
        service = toy_service(folder, name, duties=PaidDuties(name))
        service._duties.at(service.site)
        services.append(service)
    return services


def test_every_instruction_after_the_survey_carries_the_sites_own_countersignature(tmp_path):
    services = federation(tmp_path)
    run_in_process(services, toy_plan(), tmp_path / "out")
    server = HeadBook(tmp_path / "consortium")
    for service in services:
        survey, *others = service._duties.seen
        assert survey.countersignature is None
        words = [instruction.countersignature for instruction in others]
        assert all(word is not None and genuine(word) and word.site == service.name for word in words)
        assert [word.round for word in words] == [instruction.round for instruction in others]
        sequences = [word.head.sequence for word in words]
        assert sequences == sorted(sequences)
        assert sequences[-1] == 3, "the charge of the second round: its update's row comes after"
        assert server.countersign(service.name, "run", 1).head.sequence == 3
    lines = [line for line in read(tmp_path / "out" / "audit.jsonl") if line["event"] == "update.admitted"]
    assert {line["fields"]["state"] for line in lines} == {"newest"}


def test_a_site_whose_machine_was_put_back_is_refused_by_name_and_the_others_go_on(tmp_path):
    services = federation(tmp_path)
    shutil.copytree(services[0].site.state, tmp_path / "backup")
    run_in_process(services, toy_plan(), tmp_path / "one")
    shutil.rmtree(services[0].site.state)
    shutil.copytree(tmp_path / "backup", services[0].site.state)
    record = run_in_process(federation_again(services), toy_plan(), tmp_path / "two")
    assert record.rounds[0].refused == {"alpha": "ledger-rollback"}
    assert record.trained == ("beta", "gamma")
    with Ledger(services[0].site.ledger, simulated=True) as ledger:
        assert ledger.charges == ()


def federation_again(services):
    """The same hospitals after a restart."""
    for service in services:
        service._duties.at(service.site)
    return services


def test_two_runs_of_one_federation_use_one_key_and_go_on(tmp_path):
    services = federation(tmp_path)
    for out in ("one", "two"):
        record = run_on(InProcessGrid([s.site.folder for s in hosted(services)]), toy_plan(), tmp_path / out)
        assert record.trained == SITES
    with Ledger(services[0].site.ledger, simulated=True) as ledger:
        assert len(ledger.charges) == 4


def hosted(services):
    from client import direct  # noqa: PLC0415

    for service in services:
        direct.host(service)
    return services


def head(sequence, letter="a"):
    return LedgerHead(sequence, "sha256:" + letter * 64)


def test_a_head_moves_on_only_when_it_was_proven_and_never_back(tmp_path):
    book = HeadBook(tmp_path)
    assert book.countersign("alpha", "run", 1) is None
    assert book.shown("alpha", head(5))["state"] == "newest"
    assert book.shown("alpha", head(9))["state"] == "ahead"
    assert book.countersign("alpha", "run", 1).head == head(5)
    assert book.proven("alpha", head(9))["state"] == "newest"
    assert book.proven("alpha", head(7))["state"] == "behind"
    assert book.proven("alpha", head(9, "b"))["state"] == "fork"
    assert book.countersign("alpha", "run", 1).head == head(9)


def test_a_head_is_on_disk_before_it_is_countersigned(tmp_path):
    book = HeadBook(tmp_path)
    book.proven("alpha", head(5))
    assert not (tmp_path / HEADS).exists()
    book.countersign("alpha", "run", 1)
    assert json.loads((tmp_path / HEADS).read_text())["sites"]["alpha"]["sequence"] == 5


def test_two_runs_at_once_forget_nothing_of_each_other(tmp_path):
    one, two = HeadBook(tmp_path), HeadBook(tmp_path)
    one.proven("alpha", head(5))
    two.proven("beta", head(7))
    one.keep()
    two.keep()
    found = json.loads((tmp_path / HEADS).read_text())["sites"]
    assert set(found) == {"alpha", "beta"}


def _note(folder, number):
    book = HeadBook(folder)
    book.proven(f"site-{number}", head(number + 1))
    book.keep()


def test_processes_that_write_at_once_lose_no_head(tmp_path):
    HeadBook(tmp_path)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_note, args=(tmp_path, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(json.loads((tmp_path / HEADS).read_text())["sites"]) == 2


@pytest.mark.parametrize(("crime", "code"), [("key", "key-missing"), ("heads", "heads-unreadable")])
def test_a_book_that_lost_its_key_or_its_heads_does_not_begin_afresh(tmp_path, crime, code):
    book = HeadBook(tmp_path)
    book.proven("alpha", head(5))
    book.keep()
    if crime == "key":
        (tmp_path / KEY).unlink()
    else:
        (tmp_path / HEADS).write_text("{}")
    with pytest.raises(ConsiliumError) as refusal:
        HeadBook(tmp_path)
    assert refusal.value.code == code
