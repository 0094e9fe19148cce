"""The roster changes while a run is on: who is admitted is heard from then on, and who is revoked no more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from client import direct
from client.site import Site
from common.errors import SubsetError
from common.messages import Instruction
from common.plan import Plan
from common.roster import sign_roster
from server.federation_folder import Consortium
from server.sightings import read_sighting
from simulations.grid import InProcessGrid, run_on
from tests.enrolled import consortium as made_consortium
from tests.enrolled import enrol
from tests.toy import ToyDuties, toy_plan, toy_service


@dataclass
class Meanwhile(ToyDuties):
    """A hospital during whose work something else happens."""

    survey_: object = None
    train_: object = None

    def survey(self, instruction: Instruction, plan: Plan):
        answer = super().survey(instruction, plan)
        if self.survey_:
            self.survey_()
            self.survey_ = None
        return answer

    def train(self, instruction: Instruction, plan: Plan):
        if self.train_ and instruction.round == 2:
            self.train_()
            self.train_ = None
        return super().train(instruction, plan)


def hospitals(folder, *names: str) -> tuple[list[Site], list[Meanwhile]]:
    duties = [Meanwhile(name) for name in names]
    services = [toy_service(folder, name, duties=one) for name, one in zip(names, duties, strict=True)]
    for service in services:
        direct.host(service)
    return [service.site for service in services], duties


def run(server: Consortium, sites: list[Site], **plan):
    grid = InProcessGrid([site.folder for site in sites])
    return run_on(grid, toy_plan(rounds=2, **plan), server.folder / "runs" / "toy")


def test_a_hospital_that_is_admitted_while_a_run_waits_takes_part_in_it(tmp_path):
    """beta has neither roster nor pin when the run begins, and both when it is asked."""
    server = made_consortium(tmp_path)
    sites, (alpha, _beta) = hospitals(tmp_path, "alpha", "beta")
    enrol(server, sites[0])
    alpha.survey_ = lambda: enrol(server, *sites, version=2)
    record = run(server, sites, least_sites=2)
    assert (record.status, record.subset) == ("completed", False)
    assert set(record.trained) == {"alpha", "beta"}
    assert read_sighting(server.folder, "beta").audit is not None, "its word on the logs is believed too"


def test_a_hospital_that_is_revoked_during_a_run_is_heard_no_more_in_it(tmp_path):
    """Its connection ends too; here an answer of its arrives all the same, as one that was under way."""
    server = made_consortium(tmp_path)
    sites, duties = hospitals(tmp_path, "alpha", "beta", "gamma")
    enrol(server, *sites)

    def revoke() -> None:
        known = server.book.roster()
        left = [member for member in known.members if member.name != "gamma"]
        roster = sign_roster(server.identity, server.name, 2, left)
        server.book.next_roster(lambda *_: roster, datetime.now(UTC))

    for one in duties:
        one.train_ = revoke
    duties[1].train_ = duties[2].train_ = None
    record = run(server, sites, least_sites=2)
    assert record.status == "completed"
    assert record.subset
    assert "gamma" not in record.rounds[1].sites
    assert record.rounds[1].refused["gamma"] == "envelope-sender"


def test_with_too_few_left_the_run_ends_by_name(tmp_path):
    server = made_consortium(tmp_path)
    sites, duties = hospitals(tmp_path, "alpha", "beta")
    enrol(server, *sites)

    def revoke() -> None:
        known = server.book.roster()
        roster = sign_roster(
            server.identity, server.name, 2, [one for one in known.members if one.name != "beta"]
        )
        server.book.next_roster(lambda *_: roster, datetime.now(UTC))

    duties[0].train_ = revoke
    with pytest.raises(SubsetError):
        run(server, sites, least_sites=2)
