"""An analysis between the real ServerApp, the real courier and real site services, in one process."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from client import direct
from client.analytics.count import counted, patients_of
from client.privacy.ledger import Ledger
from client.service import SiteService
from common import wire
from common.analytics import schema_of
from common.audit import read
from common.cells import coarse, exact_tables
from common.code import code_digest
from common.errors import SubsetError
from common.messages import Instruction, Kind
from common.plan import dump_plan
from server.analytics.page import page
from server.analytics.records import read_analysis
from server.analytics.run import RECORD
from server.analytics.trouble import predicted
from server.journal import read_federation
from simulations.enrolment import enrol
from simulations.grid import InProcessGrid, run_on
from tests.counted import counted_site, federation, population, survey_plan

NAMES = ("anna", "bert", "carla", "dora", "emil")


class Leaving(InProcessGrid):
    """A grid from which some nodes vanish at a kind of question, and stay away."""

    leave: dict[int, Kind]

    def deliver(self, message):
        node, asked = message.metadata.dst_node_id, wire.unpack(body_of(message))
        if isinstance(asked, Instruction) and self.leave.get(node) is asked.kind:
            self._vanished = {*getattr(self, "_vanished", ()), node}
        if node in getattr(self, "_vanished", ()):
            return [Message(Error(ErrorCode.NODE_UNAVAILABLE, "away"), reply_to=message)]
        return super().deliver(message)


def body_of(message) -> bytes:
    """The instruction in a message, out of its envelope."""
    return wire.parts_of(message.content)[1]


def run(folder, services, plan, grid=None):
    for service in services:
        direct.host(service)
    grid = grid or InProcessGrid([service.site.folder for service in services])
    record = run_on(grid, plan, folder / "out")
    return record, read_analysis(folder / "out" / RECORD)


def exact(services, plan, names):
    """What these hospitals have together, counted in the open, by the rules for what is written down of a sum."""
    schema = schema_of(plan)
    counts = [counted(patients_of(one.site, plan), plan) for one in services if str(one.name) in names]
    least = plan.evaluation.min_cell
    return {one.axis: one.cells for one in coarse(exact_tables(schema, np.sum(counts, axis=0)), least, least)}


def test_a_sum_of_five_is_what_they_have_together_and_nobody_says_a_cell_alone(tmp_path):
    services = federation(tmp_path, {name: population(seed) for seed, name in enumerate(NAMES)})
    plan = survey_plan(NAMES)
    record, found = run(tmp_path, services, plan)
    assert record.status == "completed"
    assert not record.subset
    assert found.own == ()
    assert found.summed.sites == NAMES
    assert found.summed.tables == exact(services, plan, NAMES)
    assert found.summed.tables["sex"][0][0] > 200
    for service in services:
        left = [
            line["fields"]["kind"] for line in read(service.site.audit) if line["event"] == "egress.release"
        ]
        assert set(left) == {"sitemetrics", "keys", "shares", "masked", "consent", "opened"}
    assert "No trouble seen" in page(found)


def test_own_cells_beside_the_sum_of_the_others_and_the_trouble_that_was_planted(tmp_path):
    """One hospital whose machine tells the disease, one with other images; the other three are only in the sum."""
    hospitals = {name: population(seed) for seed, name in enumerate(NAMES)}
    hospitals |= {"anna": population(7, carried=True), "bert": population(8, dark=True)}
    services = federation(tmp_path, hospitals)
    plan = survey_plan(NAMES, own=("anna", "bert"))
    _, found = run(tmp_path, services, plan)
    assert [part.sites for part in found.own] == [("anna",), ("bert",)]
    assert found.summed.sites == NAMES[2:]
    assert found.summed.tables == exact(services, plan, NAMES[2:])
    for part in found.own:
        assert part.tables == exact(services, plan, part.sites)
    named = {(one.kind, one.where, one.axis) for one in predicted(found)}
    assert ("shortcut", "anna", "manufacturer") in named
    assert ("look", "bert", "exposure") in named
    assert not [one for one in named if one[0] == "shortcut" and one[1] != "anna"]


def test_whoever_vanishes_after_the_keys_is_not_in_the_sum_and_it_is_still_right(tmp_path):
    services = federation(tmp_path, {name: population(seed) for seed, name in enumerate(NAMES)})
    plan = survey_plan(NAMES)
    grid = Leaving([service.site.folder for service in services])
    grid.leave = {2: Kind.ANALYSE, 4: Kind.CONSENT}
    record, found = run(tmp_path, services, plan, grid)
    assert record.subset
    # Who vanished after its counts were masked is in the sum all the same.
    assert found.summed.sites == ("anna", "carla", "dora", "emil")
    assert found.missing == ("bert",)
    assert found.summed.tables == exact(services, plan, found.summed.sites)


def test_with_too_few_left_nothing_is_opened_and_with_the_same_folder_it_goes_on(tmp_path):
    services = federation(tmp_path, {name: population(seed, 60) for seed, name in enumerate(NAMES)})
    plan = survey_plan(NAMES, federation={"deadline_s": 3.0})
    grid = Leaving([service.site.folder for service in services])
    grid.leave = {1: Kind.ANALYSE, 2: Kind.ANALYSE, 3: Kind.ANALYSE}
    with pytest.raises(SubsetError):
        run(tmp_path, services, plan, grid)
    assert not (tmp_path / "out" / RECORD).exists()
    before = read_federation(tmp_path / "out" / "federation.json")
    assert before.status == "subset"
    record, found = run(tmp_path, services, plan)
    assert record.run == before.run
    assert found.summed.sites == NAMES
    assert found.summed.tables == exact(services, plan, NAMES)


def test_a_later_sum_without_one_of_the_hospitals_is_not_opened(tmp_path):
    """Else the difference of both would be that one's own counts."""
    services = federation(tmp_path, {name: population(seed, 30) for seed, name in enumerate(NAMES)})
    plan = survey_plan(NAMES)
    run(tmp_path, services, plan)
    grid = Leaving([service.site.folder for service in services])
    grid.leave = {5: Kind.PRESENT}
    again = survey_plan(NAMES, study={"name": "again"}, federation={"deadline_s": 4.0})
    with pytest.raises(SubsetError, match="secagg-difference"):
        run(tmp_path / "second", services, again, grid)


def test_who_refuses_is_named_with_the_code_and_the_others_go_on(tmp_path):
    services = federation(tmp_path, {name: population(seed, 60) for seed, name in enumerate(NAMES[:4])})
    shy = counted_site(tmp_path, "emil", population(5, 60), analytics="off")
    timid = counted_site(tmp_path, "frida", population(6, 60), analytics="totals")
    services += [SiteService(shy), SiteService(timid)]
    enrol([service.site for service in services], tmp_path / "consortium")
    _, found = run(tmp_path, services, survey_plan((*NAMES, "frida"), own=("emil", "frida")))
    assert found.refused == {"emil": "policy-analytics", "frida": "policy-analytics"}
    assert found.own == ()
    assert found.summed.sites == NAMES[:4]


def test_with_noise_the_ledger_is_charged_and_the_same_question_gets_the_same_numbers(tmp_path):
    services = federation(tmp_path, {name: population(seed, 60) for seed, name in enumerate(NAMES[:3])})
    plan = survey_plan(NAMES[:3], analytics={"epsilon": 2.0})
    _, found = run(tmp_path, services, plan)
    assert found.summed.noisy
    assert found.noise > 3
    names = NAMES[:3]
    true = np.array(exact(services, survey_plan(names, evaluation={"min_cell": 1}), names)["sex"])
    assert not np.array_equal(np.array(found.summed.tables["sex"]), true)
    for service in services:
        with Ledger(service.site.ledger, simulated=True) as ledger:
            assert len(ledger.charges) == 1
            assert 0 < ledger.epsilon(1e-5) <= 2.0


@pytest.mark.parametrize("kind", [Kind.TRAIN, Kind.SURVEY, Kind.THRESHOLD, Kind.EVALUATE])
def test_under_an_analysis_nothing_else_is_answered(tmp_path, kind):
    service = federation(tmp_path, {"anna": population(1, 30)})[0]
    plan = survey_plan(("anna",), own=("anna",))
    asked = Instruction(kind, "run-1", 1, dump_plan(plan), plan.digest, code_digest(), {})
    assert service.handle(asked).code == "kind"
