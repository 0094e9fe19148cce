"""Asking again: what is no answer yet, who came back, how long the plan waits, and what a restart keeps."""

from __future__ import annotations

import time

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from client import direct
from common import wire
from common.checkpoints import load
from common.code import code_digest
from common.errors import FederationError, PlanError, StorageError, SubsetError
from common.messages import Kind, Refusal, Update
from server.asking import Patience
from server.journal import Journal, is_owned, read_federation
from server.rounds import run_federation
from server.runs import Study, outcome
from server.start import Options, start_of
from simulations.grid import InProcessGrid, run_on
from tests.toy import ToyDuties, toy_plan, toy_service

SITES = {"alpha": 100, "beta": 200, "gamma": 50}


class Living(InProcessGrid):
    """A grid on which nodes come and go as in a deployment; `change` sees each reply of node 2 in training."""

    def __init__(self, folders, change=lambda reply, _message, _grid: [reply]):
        super().__init__(folders)
        self.change = change
        self.there = set(super().get_node_ids())
        self.asked: list[tuple[int, str]] = []
        self.moved: dict[int, int] = {}

    def get_node_ids(self):
        return sorted(self.there)

    def deliver(self, message):
        node = message.metadata.dst_node_id
        if node not in self.there:
            return []
        kind = wire.unpack(wire.from_records(message.content)).kind
        self.asked.append((node, kind.value))
        replies = super().deliver(message)
        if kind is Kind.TRAIN and node == 2:
            return self.change(replies[0], message, self)
        return replies

    def restart(self, node: int, new: int) -> None:
        """The node's process was killed and another came for the same hospital, with a new number."""
        self.there.remove(node)
        self._contexts[new], self._names[new] = self._contexts[node], self._names[node]
        self._contexts[new].node_id = new
        self.there.add(new)


def _folders(folder, sites=SITES, duties=None):
    services = [toy_service(folder, n, b, (duties or {}).get(n)) for n, b in sites.items()]
    for service in services:
        direct.host(service)
    return [service.site.folder for service in services]


def _run(grid, plan, out, consortium):
    return run_federation(grid, plan, out, Options(consortium=consortium))


def _same(one, two):
    first, second = load(one / "model.safetensors").arrays, load(two / "model.safetensors").arrays
    return all(first[n].tobytes() == second[n].tobytes() for n in first)


def _lost(code):
    return lambda _reply, message, _grid: [Message(Error(code, "/pacs/Anna"), reply_to=message)]


def _refusal(code):
    def change(reply, message, _grid):
        said = wire.unpack(wire.from_records(reply.content))
        no = Refusal(said.site, said.run, said.round, code, said.code_digest)
        return [Message(wire.to_records(wire.pack(no)), reply_to=message)]

    return change


def _once(change):
    """The first reply goes wrong, the next ones do not."""
    done = []

    def first(reply, message, grid):
        done.append(1)
        return change(reply, message, grid) if len(done) == 1 else [reply]

    return first


@pytest.mark.parametrize(
    "change",
    [
        _lost(ErrorCode.NODE_UNAVAILABLE),
        _lost(ErrorCode.REPLY_MESSAGE_UNAVAILABLE),
        _lost(ErrorCode.CLIENT_APP_CRASHED),
        _refusal("busy"),
        _refusal("no-service"),
    ],
    ids=["node", "message", "crashed", "busy", "no-service"],
)
def test_what_failed_on_the_way_is_asked_again_and_changes_no_bit(tmp_path, change):
    plan = toy_plan(rounds=1)
    folders = _folders(tmp_path)
    record = _run(Living(folders, _once(change)), plan, tmp_path / "hurt", tmp_path)
    run_on(InProcessGrid(folders), plan, tmp_path / "clean")
    assert record.trained == tuple(SITES)
    assert record.rounds[0].refused == {}
    assert _same(tmp_path / "hurt", tmp_path / "clean")


@pytest.mark.parametrize(
    "change", [_refusal("ledger-spent"), _refusal("timeout"), _lost(ErrorCode.LOAD_CLIENT_APP_EXCEPTION)]
)
def test_a_no_is_an_answer_and_is_not_asked_again(tmp_path, change):
    grid = Living(_folders(tmp_path), change)
    record = _run(grid, toy_plan(rounds=1), tmp_path / "out", tmp_path)
    assert record.trained == ("alpha", "gamma")
    assert grid.asked.count((2, "train")) == 1


def test_a_node_that_was_restarted_is_known_again_and_asked_in_the_same_round(tmp_path):
    def dies(_reply, _message, grid):
        grid.restart(2, 22)
        return []

    plan = toy_plan(rounds=2)
    folders = _folders(tmp_path)
    grid = Living(folders, dies)
    record = _run(grid, plan, tmp_path / "hurt", tmp_path)
    run_on(InProcessGrid(folders), plan, tmp_path / "clean")
    assert record.trained == tuple(SITES)
    assert [k for n, k in grid.asked if n == 22] == ["present", "train", "train", "threshold", "evaluate"]
    assert _same(tmp_path / "hurt", tmp_path / "clean")


def test_a_site_that_comes_late_joins_the_next_round(tmp_path):
    folders = _folders(tmp_path)
    plan = toy_plan(sites=list(SITES), rounds=2, deadline_s=2.0, least_sites=2)
    grid = Living(folders, lambda reply, _m, grid: (grid.there.add(3), [reply])[1])
    grid.there.remove(3)
    record = _run(grid, plan, tmp_path / "out", tmp_path)
    assert set(record.rounds[0].sites) == {"alpha", "beta"}
    assert set(record.rounds[1].sites) == set(SITES)
    assert record.subset
    assert record.weights == SITES


def test_with_a_quorum_the_round_goes_on_without_who_is_slow_and_says_subset(tmp_path):
    plan = toy_plan(rounds=1, deadline_s=60.0, quorum_sites=2, quorum_grace_s=0.3)
    started = time.monotonic()
    record = _run(Living(_folders(tmp_path), lambda *_: []), plan, tmp_path / "out", tmp_path)
    assert time.monotonic() - started < 30
    assert record.rounds[0].refused == {"beta": "no-reply"}
    assert record.subset


def test_a_round_waits_for_the_least_sites_as_long_as_the_plan_says(tmp_path):
    """A hospital that is back after the deadline still saves the round; nobody waits for ever."""
    began = time.monotonic()

    def away(reply, message, _grid):
        if time.monotonic() - began < 3.0:
            return _lost(ErrorCode.NODE_UNAVAILABLE)(reply, message, _grid)
        return [reply]

    plan = toy_plan(rounds=1, deadline_s=1.0, least_sites=3, longest_wait_s=60.0)
    record = _run(Living(_folders(tmp_path), away), plan, tmp_path / "out", tmp_path)
    assert record.trained == tuple(SITES)
    short = toy_plan(rounds=1, deadline_s=1.0, least_sites=3, longest_wait_s=0.5)
    with pytest.raises(SubsetError):
        _run(Living(_folders(tmp_path / "two"), lambda *_: []), short, tmp_path / "short", tmp_path)


class Starting(Living):
    """The hospital of node 2 is being started anew when the run begins, and says `change` to the first survey."""

    def __init__(self, folders, change, times=1):
        super().__init__(folders)
        self.starting, self.times = change, times

    def deliver(self, message):
        replies = super().deliver(message)
        surveys = [node for node, kind in self.asked if kind == "survey" and node == 2]
        if self.asked[-1] == (2, "survey") and len(surveys) <= self.times:
            return self.starting(replies[0], message, self)
        return replies


@pytest.mark.parametrize(
    "change",
    [lambda *_: [], _lost(ErrorCode.NODE_UNAVAILABLE), _refusal("no-service"), _refusal("busy")],
    ids=["silent", "gone", "no-service", "busy"],
)
def test_a_run_is_not_given_up_for_the_second_in_which_a_hospital_was_being_started_anew(tmp_path, change):
    """As after the consortium's own fall: the run that is submitted again meets a node that reconnects."""
    plan = toy_plan(rounds=1, deadline_s=3.0, least_sites=3, longest_wait_s=60.0)
    record = _run(Starting(_folders(tmp_path), change), plan, tmp_path / "out", tmp_path)
    assert record.trained == tuple(SITES)
    assert not record.subset


def test_at_the_survey_too_nobody_waits_for_ever_and_a_no_is_a_no(tmp_path):
    short = toy_plan(rounds=1, deadline_s=1.0, least_sites=3, longest_wait_s=2.0)
    with pytest.raises(SubsetError):
        _run(Starting(_folders(tmp_path / "one"), lambda *_: [], 99), short, tmp_path / "short", tmp_path)
    plan = toy_plan(rounds=1, deadline_s=1.0, least_sites=3, longest_wait_s=3600.0)
    grid = Starting(_folders(tmp_path / "two"), _refusal("policy"), 99)
    with pytest.raises(SubsetError):
        _run(grid, plan, tmp_path / "no", tmp_path)
    assert grid.asked.count((2, "survey")) == 1


def test_who_is_missing_holds_up_no_run_that_has_enough(tmp_path):
    plan = toy_plan(rounds=1, deadline_s=1.0, least_sites=2, longest_wait_s=3600.0)
    grid = Starting(_folders(tmp_path), lambda *_: [], 99)
    assert _run(grid, plan, tmp_path / "out", tmp_path).subset
    assert grid.asked.count((2, "survey")) == 1


@pytest.mark.parametrize(
    ("patience", "admitted", "quorum_at", "end"),
    [
        (Patience(10), 0, None, 10),
        (Patience(10, least=2, longest_wait_s=50), 1, None, 60),
        (Patience(10, least=2, longest_wait_s=50), 2, None, 10),
        (Patience(10, quorum=2, grace_s=3), 2, 4.0, 7),
        (Patience(10, quorum=2, grace_s=30), 2, 4.0, 10),
    ],
)
def test_how_long_is_waited(patience, admitted, quorum_at, end):
    assert patience.ends(admitted, quorum_at) == end


@pytest.mark.parametrize(
    "wrong",
    [
        {"quorum_sites": 1},
        {"sites": ["a", "b"], "quorum_sites": 3},
        {"longest_wait_s": -1.0},
        {"quorum_grace_s": -1.0},
    ],
)
def test_a_plan_whose_patience_makes_no_sense_is_refused(wrong):
    with pytest.raises(PlanError):
        toy_plan(**wrong)


class Dies(InProcessGrid):
    """The server is killed in a round when `count` answers are in."""

    def __init__(self, folders, count, round_=1):
        super().__init__(folders)
        self.left, self.round = count, str(round_)

    def deliver(self, message):
        if message.metadata.group_id == self.round:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
        return super().deliver(message)


@pytest.mark.parametrize(("count", "round_"), [(1, 1), (2, 2)])
def test_what_was_admitted_before_the_server_died_counts_once_and_its_site_is_not_asked_again(
    tmp_path, count, round_
):
    """In a later round too: what a restart writes down first must not tidy away what it is to go on with."""
    plan = toy_plan(rounds=2)
    duties = {name: ToyDuties(name, bucket) for name, bucket in SITES.items()}
    folders = _folders(tmp_path, duties=duties)
    with pytest.raises(KeyboardInterrupt):
        run_on(Dies(folders, count, round_), plan, tmp_path / "hurt")
    kept = sorted(path.stem for path in (tmp_path / "hurt" / "round").glob("*.update"))
    assert kept == list(SITES)[:count]
    record = run_on(InProcessGrid(folders), plan, tmp_path / "hurt")
    run_on(InProcessGrid(_folders(tmp_path / "again")), plan, tmp_path / "clean")
    assert record.trained == tuple(SITES)
    assert _same(tmp_path / "hurt", tmp_path / "clean")
    for name in SITES:
        asked = [i.round for i in duties[name].seen if i.kind is Kind.TRAIN]
        assert asked == [1, 2]
    assert not (tmp_path / "hurt" / "round").exists()


def test_an_admitted_update_counts_even_when_its_site_is_gone_after_the_restart(tmp_path):
    plan = toy_plan(rounds=1, sites=list(SITES), deadline_s=2.0)
    folders = _folders(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_on(Dies(folders, 1), plan, tmp_path / "hurt")
    grid = Living(folders)
    grid.there.remove(1)
    record = _run(grid, plan, tmp_path / "hurt", tmp_path / "consortium")
    assert set(record.rounds[0].sites) == set(SITES)
    run_on(InProcessGrid(_folders(tmp_path / "again")), plan, tmp_path / "clean")
    assert _same(tmp_path / "hurt", tmp_path / "clean")


@pytest.mark.parametrize("harm", [b"", b"junk", None])
def test_a_kept_update_that_is_not_what_was_written_is_dropped_and_its_site_asked(tmp_path, harm):
    plan = toy_plan(rounds=1)
    folders = _folders(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_on(Dies(folders, 1), plan, tmp_path / "hurt")
    path = tmp_path / "hurt" / "round" / "alpha.update"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content if harm is None else harm)
    record = run_on(InProcessGrid(folders), plan, tmp_path / "hurt")
    run_on(InProcessGrid(_folders(tmp_path / "again")), plan, tmp_path / "clean")
    assert record.trained == tuple(SITES)
    assert _same(tmp_path / "hurt", tmp_path / "clean")


def test_an_update_of_another_round_is_not_taken_for_this_ones(tmp_path):
    """A kill between the checkpoint and the tidying leaves the old round's updates behind."""
    plan = toy_plan(rounds=2)
    journal = Journal(tmp_path, plan, start_of(plan).architecture)
    blob = wire.pack(
        Update("alpha", "run-1", 1, plan.digest, code_digest(), 100, {"w": np.ones(3, np.float32)})
    )
    journal.keep(b"round 1", "alpha", blob)
    ((site, update, size),) = journal.kept(b"round 1")
    assert (site, update.weight, size) == ("alpha", 100, len(blob))
    assert np.array_equal(update.arrays["w"], np.ones(3))
    assert list(journal.kept(b"round 2")) == []
    assert not list((tmp_path / "round").glob("*.update"))


def test_a_folder_is_carried_out_by_one_process_at_a_time(tmp_path):
    plan = toy_plan()
    one, two = (Journal(tmp_path, plan, start_of(plan).architecture) for _ in range(2))
    with one.owned():
        assert is_owned(tmp_path)
        with pytest.raises(FederationError) as caught, two.owned(wait_s=0.2):
            pass
    assert caught.value.code == "out-busy"
    assert not is_owned(tmp_path)


def test_a_run_under_way_says_so_before_it_asks_anybody(tmp_path):
    """Whoever keeps runs going must not take an earlier end in the folder for the present one."""
    folders = _folders(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_on(Dies(folders, 0), toy_plan(), tmp_path / "out")
    assert read_federation(tmp_path / "out" / "federation.json").status == "running"


def test_a_private_site_is_never_charged_twice_for_a_round_that_the_server_asks_again(tmp_path):
    """The question after the restart is the same to the bit, so that a ledger knows it for the same release."""
    seen = []

    class Noting(InProcessGrid):
        def deliver(self, message):
            if message.metadata.group_id == "1":
                asked = wire.unpack(wire.from_records(message.content))
                seen.append(
                    (asked.run, asked.round, asked.plan_digest, [a.tobytes() for a in asked.arrays.values()])
                )
            return super().deliver(message)

    folders = _folders(tmp_path)
    plan = toy_plan(rounds=1)

    class DiesAfterTheFirst(Noting):
        def deliver(self, message):
            replies = super().deliver(message)
            if message.metadata.group_id == "1":
                raise KeyboardInterrupt
            return replies

    with pytest.raises(KeyboardInterrupt):
        run_on(DiesAfterTheFirst(folders), plan, tmp_path / "out")
    run_on(Noting(folders), plan, tmp_path / "out")
    assert seen[0] == seen[1]


def test_a_run_under_way_in_which_a_site_is_missing_says_subset_already(tmp_path):
    """Whoever looks before the end must not take it for a run of all."""

    class Refuses(ToyDuties):
        def train(self, instruction, plan):
            raise StorageError("update", "no space is left", "Free disk space", code="storage-full")

    folders = _folders(tmp_path, duties={"gamma": Refuses("gamma", 50)})
    with pytest.raises(KeyboardInterrupt):
        run_on(Dies(folders, 0, 2), toy_plan(rounds=2), tmp_path / "runs" / "one")
    assert outcome(tmp_path, Study("one", "running", 1)) == "running, subset: 2 of 3 sites"
