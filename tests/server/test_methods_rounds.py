"""Methods over whole runs: what the server remembers survives a kill, and what a method needs is asked for by name."""

from __future__ import annotations

import numpy as np
import pytest

from client import direct
from common.audit import read
from common.checkpoints import load
from common.errors import SubsetError
from common.messages import Kind
from common.plan import replace
from server.start import start_of
from simulations.grid import InProcessGrid, run_on
from tests.masked import enrolled, masked_plan
from tests.toy import ToyDuties, target_of, toy_plan, toy_service

SITES = {"alpha": 100, "beta": 200, "gamma": 50}
PLAIN_SGD = {"training": {"momentum": 0.0, "learning_rate": 0.1, "local_steps": 5}}
METHODS = {
    "fedadam": ({"strategy": "fedadam", "server_learning_rate": 0.05}, {}),
    "scaffold": ({"strategy": "scaffold"}, PLAIN_SGD),
    "agnostic": ({"strategy": "agnostic"}, {"method": {"group_step": 0.7}}),
}


def _plan(name, **federation):
    chosen, sections = METHODS[name]
    # One replacement for all: half of a method's keys alone would be refused.
    return replace(toy_plan(), federation={**chosen, **federation}, **sections)


def _folders(folder, losses=None):
    folders = []
    for name, bucket in SITES.items():
        loss = (losses or {}).get(name)
        service = toy_service(folder, name, bucket, ToyDuties(name, bucket, loss=loss))
        direct.host(service)
        folders.append(service.site.folder)
    return folders


LOSSES = {"alpha": 0.2, "beta": 0.9, "gamma": 0.4}


@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_was_killed_goes_on_with_what_its_method_remembered(tmp_path, name):
    plan, folders = _plan(name, rounds=4), _folders(tmp_path, LOSSES)
    run_on(InProcessGrid(folders), plan, tmp_path / "whole")

    class Dies(InProcessGrid):
        """The server is killed while round 3 is under way."""

        def deliver(self, message):
            if message.metadata.group_id == "3":
                raise KeyboardInterrupt
            return super().deliver(message)

    with pytest.raises(KeyboardInterrupt):
        run_on(Dies(folders), plan, tmp_path / "torn")
    memory = [n for n in load(tmp_path / "torn" / "checkpoint.safetensors").arrays if n.startswith("memory.")]
    assert memory
    run_on(InProcessGrid(folders), plan, tmp_path / "torn")
    one, two = (load(tmp_path / out / "model.safetensors").arrays for out in ("whole", "torn"))
    assert list(one) == list(start_of(plan).arrays), "what a method remembers is no part of the model"
    assert all(one[n].tobytes() == two[n].tobytes() for n in one)


def test_sites_are_sent_the_variate_with_the_model_and_only_to_train(tmp_path):
    plan, folders = _plan("scaffold"), _folders(tmp_path)
    seen = []

    class Watched(InProcessGrid):
        def deliver(self, message):
            from common import wire  # noqa: PLC0415 - one test's

            asked = wire.unpack(wire.from_records(message.content))
            seen.append((asked.kind, asked.round, asked.arrays))
            return super().deliver(message)

    run_on(Watched(folders), plan, tmp_path / "out")
    first = start_of(plan).arrays
    for kind, round_, arrays in seen:
        control = [name for name in arrays if name.startswith("control.")]
        assert len(control) == (len(first) if kind is Kind.TRAIN else 0)
        if kind is Kind.TRAIN and round_ == 2:
            for name, array in first.items():
                mean = sum(w * (target_of(s, name, array.shape) - array) / 2 for s, w in SITES.items()) / 350
                np.testing.assert_allclose(arrays[f"control.{name}"], -mean / 0.5, atol=1e-5)


def test_a_site_that_does_not_say_its_loss_is_put_aside_by_name(tmp_path):
    plan = _plan("agnostic", rounds=1)
    record = run_on(InProcessGrid(_folders(tmp_path, {**LOSSES, "beta": None})), plan, tmp_path / "out")
    assert record.rounds[0].refused == {"beta": "objective"}
    assert {s: of.objective for s, of in record.rounds[0].sites.items()} == {"alpha": 0.2, "gamma": 0.4}


@pytest.mark.parametrize("lie", [1e6, -1.0])
def test_a_loss_that_no_honest_site_can_have_is_put_aside(tmp_path, lie):
    plan = _plan("agnostic", rounds=1)
    record = run_on(InProcessGrid(_folders(tmp_path, {**LOSSES, "beta": lie})), plan, tmp_path / "out")
    assert record.rounds[0].refused == {"beta": "objective"}


def test_where_no_policy_lets_the_loss_leave_the_run_ends_and_says_so(tmp_path):
    with pytest.raises(SubsetError):
        run_on(InProcessGrid(_folders(tmp_path)), _plan("agnostic"), tmp_path / "out")
    lines = [line for line in read(tmp_path / "out" / "audit.jsonl") if line["event"] == "update.refused"]
    assert {(line["fields"]["site"], line["fields"]["code"]) for line in lines} == {
        (site, "objective") for site in SITES
    }


@pytest.mark.parametrize("name", ["fedadam", "scaffold"])
def test_under_masks_a_method_comes_to_what_it_comes_to_in_the_open(tmp_path, name):
    names, chosen = ("anna", "bert", "carla"), METHODS[name]
    models = []
    for aggregation in ("secure", "visible"):
        folder = tmp_path / aggregation
        services = enrolled(folder, names)
        for service in services:
            direct.host(service)
        plan = replace(
            masked_plan(names, aggregation=aggregation, robust="none"), federation=chosen[0], **chosen[1]
        )
        run_on(InProcessGrid([s.site.folder for s in services]), plan, folder / "out")
        models.append(load(folder / "out" / "model.safetensors").arrays)
    for tensor in models[0]:
        np.testing.assert_allclose(models[0][tensor], models[1][tensor], atol=2e-4)
