"""Masked rounds between the real ServerApp, the real courier and real site services, in one process."""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from client import direct
from client.privacy.ledger import Ledger
from client.privacy.masking import STAGES
from client.service import SiteService
from client.socket import serve
from common import envelope, wire
from common import plan as plans
from common.audit import read
from common.checkpoints import load
from common.code import code_digest
from common.errors import FederationError, SubsetError
from common.messages import Instruction, Kind, Progress, Refusal
from common.plan import dump_plan
from common.types import RunId
from server.journal import read_federation
from server.rounds import run_federation
from server.seals import sealed
from server.start import Options, start_of
from simulations.enrolment import enrol
from simulations.grid import InProcessGrid, run_on
from tests.client.made import made_plan
from tests.masked import NAMES, enrolled, masked_plan
from tests.sites import image_site
from tests.toy import ToyDuties, target_of, toy_service


def _run(folder, services, plan, grid=InProcessGrid, **options):
    for service in services:
        direct.host(service)
    return run_on(grid([service.site.folder for service in services], **options), plan, folder / "out")


def _by_hand(plan, sites):
    """Where the toy federation must come to: half way to the weighted mean of the targets, each round."""
    model = {name: a.astype(np.float64) for name, a in start_of(plan).arrays.items()}
    for _ in range(plan.federation.rounds):
        for name, array in model.items():
            mean = sum(w * target_of(s, name, array.shape).astype(np.float64) for s, w in sites.items())
            model[name] = array + (mean / sum(sites.values()) - array) / 2
    return model


def test_the_sum_under_masks_is_the_weighted_mean_worked_out_by_hand(tmp_path):
    sites = dict(zip(NAMES, (100, 200, 50, 100, 300), strict=False))
    plan = masked_plan(tuple(sites))
    record = _run(tmp_path, enrolled(tmp_path, tuple(sites), list(sites.values())), plan)
    assert record.status == "completed"
    assert record.trained == tuple(sorted(sites))
    found = load(tmp_path / "out" / "model.safetensors").arrays
    for name, array in _by_hand(plan, sites).items():
        np.testing.assert_allclose(found[name], array, atol=1e-6)


class Leaving(InProcessGrid):
    """A grid from which some sites vanish at a stage: they get no question of it and none after it."""

    leave: ClassVar[dict[int, Kind]] = {}
    round: int = 1

    def deliver(self, message):
        instruction = instruction_in(message)
        stage = self.leave.get(message.metadata.dst_node_id)
        late = stage is Kind.SURVEY or (
            stage is not None
            and instruction.kind in STAGES
            and STAGES.index(instruction.kind) >= STAGES.index(stage)
        )
        if late and instruction.round >= self.round:
            return [Message(Error(ErrorCode.NODE_UNAVAILABLE, ""), reply_to=message)]
        return super().deliver(message)


def instruction_in(message):
    """What the courier of this message would hand to its site."""
    blob = wire.from_records(message.content)
    return wire.unpack(envelope.split(blob)[1] if envelope.is_sealed(blob) else blob)


SHORT = {"rounds": 1, "deadline_s": 2.0, "quorum_sites": 3, "quorum_grace_s": 0.1}


@pytest.mark.parametrize("stage", STAGES)
def test_two_of_five_vanish_at_a_stage_and_the_model_is_that_of_the_rest(tmp_path, stage):
    plan = masked_plan(**SHORT)
    grid = type("Left", (Leaving,), {"leave": {2: stage, 4: stage}})
    record = _run(tmp_path, enrolled(tmp_path), plan, grid)
    assert record.status == "completed"
    summed = stage in {Kind.CONSENT, Kind.UNMASK}
    assert record.trained == (NAMES[:5] if summed else ("anna", "carla", "emil"))
    assert record.subset is not summed
    found = load(tmp_path / "out" / "model.safetensors").arrays
    for name, array in _by_hand(plan, dict.fromkeys(record.trained, 100)).items():
        np.testing.assert_allclose(found[name], array, atol=1e-6)


def test_with_too_few_left_the_round_is_given_up_charged_and_said_so_and_goes_on_when_they_are_back(tmp_path):
    plan = masked_plan(**SHORT)
    services = enrolled(tmp_path)
    grid = type("Left", (Leaving,), {"leave": dict.fromkeys((2, 4, 5), Kind.UNMASK)})
    with pytest.raises(SubsetError, match="given up"):
        _run(tmp_path, services, plan, grid)
    assert read_federation(tmp_path / "out" / "federation.json").status == "subset"
    assert not (tmp_path / "out" / "model.safetensors").exists()
    events = [entry["event"] for entry in read(tmp_path / "out" / "audit.jsonl")]
    assert "round.abandoned" in events
    assert "sum.opened" not in events
    record = _run(tmp_path, services, plan)
    assert record.trained == NAMES[:5]
    found = load(tmp_path / "out" / "model.safetensors").arrays
    for name, array in _by_hand(plan, dict.fromkeys(record.trained, 100)).items():
        np.testing.assert_allclose(found[name], array, atol=1e-6)
    trained = [sum(i.kind is Kind.TRAIN for i in service._duties.seen) for service in services]
    assert trained == [1] * 5, "nobody trained again, and nobody masked again"


def test_the_server_is_killed_after_each_stage_and_goes_on(tmp_path):
    plan = masked_plan(rounds=1)
    services = enrolled(tmp_path)
    for stage in STAGES:

        class Killed(InProcessGrid):
            seen = 0

            def deliver(self, message, stage=stage):
                if instruction_in(message).kind is stage:
                    self.seen += 1
                    if self.seen == 3:
                        raise KeyboardInterrupt
                return super().deliver(message)

        with pytest.raises(KeyboardInterrupt):
            _run(tmp_path, services, plan, Killed)
    record = _run(tmp_path, services, plan)
    assert record.trained == NAMES[:5]
    events = [(e["event"], e["fields"].get("site")) for e in read(tmp_path / "out" / "audit.jsonl")]
    assert sorted(site for event, site in events if event == "update.admitted") == list(NAMES[:5]), (
        "once each"
    )
    assert ("update.kept", NAMES[0]) in events
    assert record.rounds[0].masked
    found = load(tmp_path / "out" / "model.safetensors").arrays
    for name, array in _by_hand(plan, dict.fromkeys(record.trained, 100)).items():
        np.testing.assert_allclose(found[name], array, atol=1e-6)
    assert [sum(i.kind is Kind.TRAIN for i in s._duties.seen) for s in services] == [1] * 5


@pytest.mark.parametrize("stage", STAGES)
def test_the_server_is_killed_and_when_it_is_back_two_sites_are_gone_for_good(tmp_path, stage):
    """Whoever gave keys, shares or an update before the crash counts as far as that goes; nobody is asked who is not there."""
    plan, services = masked_plan(**SHORT), enrolled(tmp_path)

    class Killed(InProcessGrid):
        seen = 0

        def deliver(self, message):
            self.seen += instruction_in(message).kind is stage
            if self.seen == 4 and instruction_in(message).kind is stage:
                raise KeyboardInterrupt
            return super().deliver(message)

    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, services, plan, Killed)
    grid = type("Left", (Leaving,), {"leave": {2: Kind.SURVEY, 4: Kind.SURVEY}, "round": 0})
    record = _run(tmp_path, services, plan, grid)
    assert record.status == "completed"
    summed = ("anna", "bert", "carla", "emil") if stage is Kind.TRAIN else record.trained
    assert record.trained == summed
    found = load(tmp_path / "out" / "model.safetensors").arrays
    for name, array in _by_hand(plan, dict.fromkeys(record.trained, 100)).items():
        np.testing.assert_allclose(found[name], array, atol=1e-6)


class Coming(InProcessGrid):
    """A grid as in a deployment, on which only some nodes are there; one comes while the sum is being opened."""

    def __init__(self, folders, there, comes=0):
        super().__init__(folders)
        self.there, self.comes = set(there), comes

    def get_node_ids(self):
        return sorted(self.there)

    def deliver(self, message):
        if message.metadata.dst_node_id not in self.there:
            return []
        if self.comes and instruction_in(message).kind is Kind.UNMASK:
            self.there.add(self.comes)
        return super().deliver(message)


def _served(grid, plan, folder):
    home = folder / "consortium"
    return run_federation(sealed(grid, home), plan, folder / "out", Options(consortium=home))


def test_a_site_that_is_needed_and_comes_back_after_the_survey_is_asked_in_the_stage_under_way(tmp_path):
    """Its update is in the sum since before the crash, and without its shares nobody could open it."""
    plan, services = masked_plan(rounds=1, deadline_s=6.0), enrolled(tmp_path)
    for service in services:
        direct.host(service)
    folders = [service.site.folder for service in services]

    class Killed(Coming):
        def deliver(self, message):
            kind, node = instruction_in(message).kind, message.metadata.dst_node_id
            if kind is Kind.TRAIN:
                self.there -= {4, 5}
            if kind is Kind.UNMASK and node == 2:
                raise KeyboardInterrupt
            return super().deliver(message)

    with pytest.raises(KeyboardInterrupt):
        _served(Killed(folders, range(1, 6)), plan, tmp_path)
    record = _served(Coming(folders, {1, 2, 4}, comes=3), plan, tmp_path)
    assert record.trained == NAMES[:3]
    found = load(tmp_path / "out" / "model.safetensors").arrays
    for name, array in _by_hand(plan, dict.fromkeys(record.trained, 100)).items():
        np.testing.assert_allclose(found[name], array, atol=1e-6)


def test_the_server_never_holds_weight_norm_or_figures_of_one_site(tmp_path):
    record = _run(tmp_path, enrolled(tmp_path), masked_plan(rounds=2))
    for round_ in record.rounds:
        assert (round_.masked, round_.judged, round_.worse) == (True, 5 if round_.round > 1 else 0, 0)
        assert round_.loss == pytest.approx(0.7, abs=1e-6)
        assert {(s.update_norm, s.loss, s.auroc) for s in round_.sites.values()} == {(None, None, None)}


class Souring(ToyDuties):
    """A hospital whose validation patients find every model after the first worse and worse."""

    def train(self, instruction, plan):
        update = super().train(instruction, plan)
        return replace(update, progress=Progress(0.5 * instruction.round, 0.5))


def test_an_aggregate_that_does_harm_is_rolled_back(tmp_path):
    services = enrolled(tmp_path, duties=Souring)
    plan = masked_plan(rounds=2)
    record = _run(tmp_path, services, plan)
    assert [round_.rolled_back for round_ in record.rounds] == [False, True]
    assert (record.rounds[1].judged, record.rounds[1].worse) == (5, 5)
    assert "round.reverted" in [entry["event"] for entry in read(tmp_path / "out" / "audit.jsonl")]
    found = load(tmp_path / "out" / "model.safetensors").arrays
    for name, array in start_of(plan).arrays.items():
        np.testing.assert_array_equal(found[name], array)


class SourAtTheEnd(ToyDuties):
    """A hospital whose validation patients find the final model worse than the one before, and that one not."""

    def threshold(self, instruction, plan):
        first = sum(seen.kind is Kind.THRESHOLD for seen in self.seen) == 0
        return replace(super().threshold(instruction, plan), worse=first)


def test_the_last_aggregate_is_judged_too(tmp_path):
    services = enrolled(tmp_path, duties=SourAtTheEnd)
    plan = masked_plan(rounds=1)
    record = _run(tmp_path, services, plan)
    assert record.rounds[0].rolled_back
    found = load(tmp_path / "out" / "model.safetensors").arrays
    for name, array in start_of(plan).arrays.items():
        np.testing.assert_array_equal(found[name], array)
    assert [i.kind for i in services[0]._duties.seen].count(Kind.THRESHOLD) == 2


class Sockets(InProcessGrid):
    """The courier's other way: each site behind its own Unix socket, as in a deployment."""

    folder: Path

    def __init__(self, folders, **options):
        super().__init__(folders, **options)
        for number, folder in enumerate(folders, start=1):
            self._contexts[number].node_config = {"service-socket": str(self.folder / f"{folder.name}.sock")}


def test_masked_rounds_through_the_sockets_of_a_deployment(tmp_path):
    services = enrolled(tmp_path)
    plan = masked_plan(rounds=1, mask_bits=24)
    with tempfile.TemporaryDirectory(prefix="s-") as short:  # a socket's path has little room
        served = [serve(service, Path(short) / f"{service.name}.sock") for service in services]
        try:
            record = _run(tmp_path, services, plan, type("Here", (Sockets,), {"folder": Path(short)}))
        finally:
            for server in served:
                server.stop(grace=None).wait()
    assert record.trained == NAMES[:5]
    found = load(tmp_path / "out" / "model.safetensors").arrays
    for name, array in _by_hand(plan, dict.fromkeys(record.trained, 100)).items():
        np.testing.assert_allclose(found[name], array, atol=1e-5)


@pytest.mark.parametrize(("private", "word"), [(True, False), (True, True), (False, False)])
def test_images_noise_and_masks_together(tmp_path, private, word):
    """Real training: each site's ledger is charged as without masks; no word of validation patients, whom epsilon does
    not cover, leaves beside a private update unless the hospitals' policies say so, not even a vote in a sum.
    """
    names = ("alpha", "beta", "gamma")
    masked = {"aggregation": "secure", "least_sites": 3, "sites": list(names), "mask_bits": 32, "rounds": 2}
    plan = made_plan(federation=masked, evaluation={"min_cell": 1, "bootstrap": 100})
    if private:
        plan = plans.replace(plan, privacy={"mode": "patient-dp", "epsilon": 4.0})
    sites = [image_site(tmp_path / name, name) for name in names]
    sites = [replace(site, policy=replace(site.policy, private_progress=word)) for site in sites]
    enrol(sites, tmp_path / "consortium")
    record = _run(tmp_path, [SiteService(site) for site in sites], plan)
    assert record.status == "completed"
    assert record.trained == names
    for site in sites:
        spent = [round_.sites[site.name].epsilon for round_ in record.rounds]
        assert (0 < spent[0] < spent[1] <= 4.0) if private else spent == [None, None]
        with Ledger(site.ledger, simulated=True) as ledger:
            assert [charge.release.round for charge in ledger.charges] == [1, 2], "masks make nothing cheaper"
            assert ledger.epsilon(plan.privacy.delta) == (pytest.approx(spent[1]) if private else math.inf)
    silent = private and not word
    assert [round_.judged for round_ in record.rounds] == [0, 0 if silent else 3]
    assert (record.rounds[0].loss is None) is silent, "no figure of a private plan leaves, not even summed"
    assert set(record.sites) == set(names)


def test_masks_without_a_roster_are_refused_before_anybody_trains(tmp_path):
    services = [toy_service(tmp_path, name) for name in NAMES[:3]]
    with pytest.raises(FederationError) as caught:
        _run(tmp_path, services, masked_plan(NAMES[:3], rounds=1))
    assert caught.value.code == "not-enrolled"
    assert all(i.kind is Kind.SURVEY for s in services for i in s._duties.seen)


def test_a_plan_with_masks_gets_no_plain_update_whatever_the_server_asks(tmp_path):
    service = enrolled(tmp_path, NAMES[:3])[0]
    plan = masked_plan(NAMES[:3])
    asked = Instruction(
        Kind.TRAIN, RunId("run-1"), 1, dump_plan(plan), plan.digest, code_digest(), start_of(plan).arrays
    )
    reply = service.handle(asked)
    assert isinstance(reply, Refusal)
    assert reply.code == "secagg-order"
    assert service._duties.seen == []
