"""Rounds: what advances them, what does not, and what is left behind either way."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from client import direct
from common import wire
from common.audit import read, verify
from common.checkpoints import load
from common.errors import FederationError, SubsetError
from common.messages import Kind, Update
from server.app import summary
from server.exchange import pause
from server.journal import read_federation
from server.start import start_of
from simulations.grid import InProcessGrid, run_on
from tests.toy import ToyDuties, target_of, toy_plan, toy_service

SITES = {"alpha": 100, "beta": 200, "gamma": 50}


class Meddling(InProcessGrid):
    """A grid on which the replies of some nodes are lost, repeated or changed during training."""

    def __init__(self, folders, change, nodes=(2,), kind=Kind.TRAIN, **options):
        super().__init__(folders, **options)
        self.change, self.nodes, self.kind = change, nodes, kind

    def deliver(self, message):
        replies = super().deliver(message)
        instruction = wire.unpack(wire.from_records(message.content))
        if message.metadata.dst_node_id in self.nodes and instruction.kind is self.kind:
            return self.change(replies[0], message)
        return replies


def _services(folder: Path, sites=SITES):
    services = [toy_service(folder, name, bucket) for name, bucket in sites.items()]
    for service in services:
        direct.host(service)
    return services


def _folders(folder: Path, sites=SITES):
    return [service.site.folder for service in _services(folder, sites)]


def _expected_model(plan, sites):
    """The toy federation by hand: each round moves half way to the weighted mean of the targets."""
    model = {name: a.astype(np.float64) for name, a in start_of(plan).arrays.items()}
    for _ in range(plan.federation.rounds):
        for name, array in model.items():
            mean = sum(w * target_of(s, name, array.shape).astype(np.float64) for s, w in sites.items())
            step = (mean / sum(sites.values()) - array) / 2
            model[name] = array + plan.federation.server_learning_rate * step
    return model


def _edit(**changes):
    """A reply with some fields of its update changed."""

    def change(reply, message):
        update = wire.unpack(wire.from_records(reply.content))
        fields = {k: v(update) if callable(v) else v for k, v in changes.items()}
        blob = wire.pack(Update(**{**vars(update), **fields}))
        return [Message(wire.to_records(blob), reply_to=message)]

    return change


def _arrays(change):
    return lambda update: change(dict(update.arrays))


def _first(change):
    def edit(arrays):
        name = next(iter(arrays))
        return {**arrays, name: change(arrays[name])}

    return _arrays(edit)


BAD = {
    "nan": (_edit(arrays=_first(lambda a: np.full_like(a, np.nan))), "not-finite"),
    "inf": (_edit(arrays=_first(lambda a: np.full_like(a, np.inf))), "not-finite"),
    "shape": (_edit(arrays=_first(lambda a: a.reshape(-1))), "shape"),
    "dtype": (_edit(arrays=_first(lambda a: a.astype(np.float64))), "dtype"),
    "missing": (_edit(arrays=_arrays(lambda a: dict(list(a.items())[1:]))), "names"),
    "extra": (_edit(arrays=_arrays(lambda a: {**a, "x": np.zeros(1, np.float32)})), "names"),
    "norm": (_edit(arrays=_first(lambda a: a + np.float32(1e5))), "norm"),
    "weight": (_edit(weight=-200), "weight"),
    "heavier": (_edit(weight=1_000_000), "weight"),
    "round": (_edit(round=99), "round"),
    "run": (_edit(run="run-other"), "run"),
    "site": (_edit(site="alpha"), "site"),
    "code": (_edit(code_digest="sha256:" + "0" * 64), "code-mismatch"),
    "junk": (lambda _r, m: [Message(wire.to_records(b"junk"), reply_to=m)], "wire"),
    "instruction": (lambda _r, m: [Message(m.content, reply_to=m)], "kind"),
    "raised": (
        lambda _r, m: [Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "/pacs/Anna"), reply_to=m)],
        "client-error",
    ),
    "gone": (lambda _r, m: [Message(Error(ErrorCode.NODE_UNAVAILABLE, ""), reply_to=m)], "no-reply"),
    "dead": (lambda _r, _m: [], "no-reply"),
}


def test_the_global_model_is_the_weighted_mean_worked_out_by_hand(tmp_path):
    plan = toy_plan(server_learning_rate=0.5)
    record = run_on(InProcessGrid(_folders(tmp_path)), plan, tmp_path / "out")
    assert record.status == "completed"
    assert record.trained == record.expected == record.registered == ("alpha", "beta", "gamma")
    assert not record.subset
    model = load(tmp_path / "out" / "model.safetensors")
    assert model.architecture == start_of(plan).architecture
    for name, array in _expected_model(plan, SITES).items():
        np.testing.assert_allclose(model.arrays[name], array, rtol=1e-5, atol=1e-6)
        assert model.arrays[name].dtype == np.float32


@pytest.mark.parametrize(
    "order", [lambda n: 0, lambda n: n - 1, lambda n: n // 2], ids=["first", "last", "mid"]
)
def test_the_order_of_arrival_does_not_change_a_bit_of_the_model(tmp_path, order):
    plan = toy_plan(rounds=3)
    folders = _folders(tmp_path)
    run_on(InProcessGrid(folders, order=order), plan, tmp_path / "one")
    run_on(InProcessGrid(list(reversed(folders))), plan, tmp_path / "two")
    one, two = (load(tmp_path / out / "model.safetensors").arrays for out in ("one", "two"))
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)


@pytest.mark.parametrize(("change", "code"), BAD.values(), ids=BAD)
def test_one_bad_site_is_put_aside_by_name_and_the_round_completes(tmp_path, change, code):
    plan = toy_plan(deadline_s=2.0, rounds=1)
    record = run_on(Meddling(_folders(tmp_path), change), plan, tmp_path / "out")
    assert record.status == "completed"
    assert record.rounds[0].refused == {"beta": code}
    assert tuple(record.rounds[0].sites) == record.trained == ("alpha", "gamma")
    assert record.subset
    model = load(tmp_path / "out" / "model.safetensors").arrays
    without = {name: bucket for name, bucket in SITES.items() if name != "beta"}
    for name, array in _expected_model(plan, without).items():
        np.testing.assert_allclose(model[name], array, rtol=1e-5, atol=1e-6)
    assert "Anna" not in (tmp_path / "out" / "audit.jsonl").read_text()


def test_a_duplicate_reply_changes_nothing_and_is_noted(tmp_path):
    plan = toy_plan(rounds=1)
    folders = _folders(tmp_path)
    grid = Meddling(folders, lambda reply, _message: [reply, reply])
    record = run_on(grid, plan, tmp_path / "out")
    run_on(InProcessGrid(folders), plan, tmp_path / "clean")
    one, two = (load(tmp_path / out / "model.safetensors").arrays for out in ("out", "clean"))
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    assert record.trained == ("alpha", "beta", "gamma")
    refused = [e["fields"] for e in read(tmp_path / "out" / "audit.jsonl") if e["event"] == "update.refused"]
    assert [(fields["site"], fields["code"]) for fields in refused] == [("beta", "duplicate")]


def test_too_few_updates_end_the_run_with_a_record_that_says_so(tmp_path):
    change, _ = BAD["nan"]
    with pytest.raises(SubsetError):
        run_on(Meddling(_folders(tmp_path), change, nodes=(1, 2)), toy_plan(), tmp_path / "out")
    record = read_federation(tmp_path / "out" / "federation.json")
    assert record.status == "subset"
    assert record.subset
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert verify(tmp_path / "out" / "audit.jsonl").count


def test_a_run_goes_on_where_it_stopped_to_the_same_bits(tmp_path):
    plan = toy_plan(rounds=4)
    folders = _folders(tmp_path)
    run_on(InProcessGrid(folders), plan, tmp_path / "whole")

    class Dies(InProcessGrid):
        """The server is killed while round 3 is under way."""

        def deliver(self, message):
            if message.metadata.group_id == "3":
                raise KeyboardInterrupt
            return super().deliver(message)

    with pytest.raises(KeyboardInterrupt):
        run_on(Dies(folders), plan, tmp_path / "torn")
    before = load(tmp_path / "torn" / "checkpoint.safetensors")
    assert before.round == 2
    steps = []
    grid = InProcessGrid(folders, progress=lambda step, _site: steps.append(step))
    record = run_on(grid, plan, tmp_path / "torn")
    assert record.run == before.run
    assert [r.round for r in record.rounds] == [1, 2, 3, 4]
    assert set(steps) == {0, 3, 4, 5, 6}
    one, two = (load(tmp_path / out / "model.safetensors").arrays for out in ("whole", "torn"))
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    assert verify(tmp_path / "torn" / "audit.jsonl").count > 0


def test_a_completed_run_submitted_again_does_nothing(tmp_path):
    plan = toy_plan()
    folders = _folders(tmp_path)
    first = run_on(InProcessGrid(folders), plan, tmp_path / "out")
    asked = []
    again = run_on(InProcessGrid(folders, progress=lambda *step: asked.append(step)), plan, tmp_path / "out")
    assert again == first
    assert asked == []


def test_a_folder_of_another_plan_is_not_gone_on_with(tmp_path):
    folders = _folders(tmp_path)
    run_on(InProcessGrid(folders), toy_plan(), tmp_path / "out")
    with pytest.raises(FederationError) as caught:
        run_on(InProcessGrid(folders), toy_plan(rounds=3), tmp_path / "out")
    assert caught.value.code == "out-used"


def test_a_site_that_only_tests_is_measured_and_is_neither_missing_nor_failed(tmp_path):
    services = _services(tmp_path, {**SITES, "external": 0})
    record = run_on(InProcessGrid([s.site.folder for s in services]), toy_plan(), tmp_path / "out")
    assert record.expected == ("alpha", "beta", "gamma")
    assert record.registered == ("alpha", "beta", "external", "gamma")
    assert not record.subset
    assert all(r.refused == {} for r in record.rounds)
    assert set(record.sites) == set(record.registered)
    asked = {instruction.kind for instruction in services[3]._duties.seen}
    assert asked == {Kind.SURVEY, Kind.EVALUATE}


def test_a_site_the_plan_names_and_nobody_saw_makes_a_subset(tmp_path):
    plan = toy_plan(sites=["alpha", "beta", "delta"], rounds=1)
    record = run_on(InProcessGrid(_folders(tmp_path)), plan, tmp_path / "out")
    assert record.expected == ("alpha", "beta", "delta")
    assert record.trained == ("alpha", "beta")
    assert record.rounds[0].refused == {"delta": "no-reply"}
    assert record.subset


def test_a_node_that_is_silent_from_the_start_is_still_expected(tmp_path):
    plan = toy_plan(rounds=1, deadline_s=2.0)
    grid = Meddling(_folders(tmp_path), lambda _r, _m: [], kind=Kind.SURVEY)
    record = run_on(grid, plan, tmp_path / "out")
    assert record.refused == {"unknown-1": "no-reply"}
    assert record.expected == ("alpha", "gamma", "unknown-1")
    assert record.subset


def test_a_name_claimed_by_two_nodes_belongs_to_neither(tmp_path):
    services = _services(tmp_path)
    impostor = toy_service(tmp_path / "elsewhere", "alpha")
    direct.host(impostor)
    folders = [*(s.site.folder for s in services), impostor.site.folder]
    record = run_on(InProcessGrid(folders), toy_plan(rounds=1), tmp_path / "out")
    assert record.refused == {"alpha": "site-twice"}
    assert record.trained == ("beta", "gamma")
    assert record.subset


@pytest.mark.parametrize("bucket", [10**15, 137, -200])
def test_a_site_whose_number_of_patients_is_no_public_bucket_stays_out_and_harms_nobody(tmp_path, bucket):
    """An absurd bucket would leave every other site's values no room in the exact sum."""
    folders = _folders(tmp_path, {"alpha": 100, "beta": bucket, "gamma": 50})
    record = run_on(InProcessGrid(folders), toy_plan(rounds=1), tmp_path / "out")
    assert record.trained == ("alpha", "gamma")
    assert record.refused == {"beta": "weight"}
    assert record.subset


def test_the_threshold_is_the_median_of_the_training_sites_and_reaches_every_test(tmp_path):
    services = _services(tmp_path, {**SITES, "external": 0})
    record = run_on(InProcessGrid([s.site.folder for s in services]), toy_plan(), tmp_path / "out")
    told = [s._duties.threshold(s._duties.seen[0], toy_plan()).threshold for s in services[:3]]
    assert record.threshold == round(sorted(told)[1], 2)
    assert {m.models[0].threshold for m in record.sites.values()} == {record.threshold}


def test_a_site_that_fails_in_evaluation_leaves_the_others_results(tmp_path):
    grid = Meddling(
        _folders(tmp_path), lambda _r, m: [Message(wire.to_records(b""), reply_to=m)], kind=Kind.EVALUATE
    )
    record = run_on(grid, toy_plan(), tmp_path / "out")
    assert record.status == "completed"
    assert set(record.sites) == {"alpha", "gamma"}


def test_a_site_silent_in_one_round_may_come_back_in_the_next(tmp_path):
    lost = []

    def lose_once(reply, message):
        lost.append(message)
        return [] if len(lost) == 1 else [reply]

    record = run_on(Meddling(_folders(tmp_path), lose_once), toy_plan(deadline_s=2.0), tmp_path / "out")
    assert record.rounds[0].refused == {"beta": "no-reply"}
    assert record.rounds[1].refused == {}
    assert record.trained == ("alpha", "gamma")


def test_a_bug_of_ours_does_not_leave_a_record_that_still_runs_and_is_found_in_the_log(tmp_path, caplog):
    class Broken(InProcessGrid):
        def deliver(self, message):
            if message.metadata.group_id == "1":
                raise ZeroDivisionError("Müller^Anna")
            return super().deliver(message)

    with pytest.raises(ZeroDivisionError):
        run_on(Broken(_folders(tmp_path)), toy_plan(), tmp_path / "out")
    assert read_federation(tmp_path / "out" / "federation.json").status == "internal"
    (said,) = [line for line in caplog.records if line.getMessage() == "run.failed"]
    assert said.fields["kind"] == "zerodivisionerror"
    assert re.fullmatch(r"(server|simulations)/[a-z_/]+\.py:\d+", said.fields["note"])
    assert "Müller" not in caplog.text


def test_sites_that_share_a_machine_have_the_time_of_all_of_them_together(tmp_path):
    """In a simulation three sites of 1.5 s each do not fit into one site's deadline of 3 s."""

    class Slow(ToyDuties):
        def train(self, instruction, plan):
            time.sleep(1.5)
            return super().train(instruction, plan)

    services = [toy_service(tmp_path, name, duties=Slow(name)) for name in SITES]
    for service in services:
        direct.host(service)
    grid = InProcessGrid([s.site.folder for s in services])
    record = run_on(grid, toy_plan(deadline_s=3.0, rounds=1), tmp_path / "out")
    assert record.trained == tuple(SITES)


def test_replies_are_fetched_one_by_one(tmp_path):
    """So that the server holds one update at a time, however many wait for it."""
    asked = []

    class Watched(InProcessGrid):
        def pull_messages(self, message_ids):
            asked.append(len(list(message_ids)))
            return super().pull_messages(message_ids)

    run_on(Watched(_folders(tmp_path)), toy_plan(), tmp_path / "out")
    assert set(asked) == {1}


def test_the_summary_says_subset_first_and_keeps_what_is_suppressed(tmp_path):
    plan = toy_plan(sites=["alpha", "beta", "delta"], rounds=1)
    record = run_on(InProcessGrid(_folders(tmp_path)), plan, tmp_path / "out")
    hidden = replace(record.sites["alpha"].models[0].groups[0], auroc=None)
    model = replace(record.sites["alpha"].models[0], groups=(hidden,))
    sites = {**record.sites, "alpha": replace(record.sites["alpha"], models=(model,))}
    lines = summary(replace(record, sites=sites)).splitlines()
    assert lines[:2] == [
        "SUBSET: 2 of 3 sites trained in every round",
        "  alpha, federated: AUROC suppressed",
    ]
    assert lines[2] == "  beta, federated: AUROC 0.800 (0.700 to 0.900)"


def test_waiting_neither_spins_nor_oversleeps():
    assert [pause(waited) for waited in (0.0, 1.0, 100.0)] == [0.002, 0.02, 0.05]


def test_the_record_is_plain_json_and_read_back_equal(tmp_path):
    record = run_on(InProcessGrid(_folders(tmp_path)), toy_plan(), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "federation.json").read_text())["status"] == "completed"
    assert read_federation(tmp_path / "out" / "federation.json") == record
    assert replace(record, status="x") != record


def test_weights_do_not_change_within_a_run(tmp_path):
    class Growing(ToyDuties):
        def train(self, instruction, plan):
            self.bucket += 50
            return super().train(instruction, plan)

    services = _services(tmp_path)
    growing = toy_service(tmp_path / "g", "delta", duties=Growing("delta", 100))
    direct.host(growing)
    folders = [*(s.site.folder for s in services), growing.site.folder]
    record = run_on(InProcessGrid(folders), toy_plan(rounds=1), tmp_path / "out")
    assert record.rounds[0].refused == {"delta": "weight"}
