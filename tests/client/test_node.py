"""The node's guard: what Flower must be like for it, and how it is noticed when Flower is not."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectUnavailableError, pull_objects

from client import node
from client.node import MOVED, command, moved
from client.service import SiteService
from client.socket import approved, serve
from common.errors import FederationError
from common.moved import source_digest
from common.release import bytes_digest
from common.shortway import QUESTIONS, WORK
from tests.enrolled import consortium, enrol, hospital
from tests.toy import ToyDuties, toy_service

LOOP = "flwr.supernode.start_client_internal"


def test_the_parts_of_flower_that_the_node_depends_on_are_as_they_were():
    """Fails with an upgrade of Flower: read the named functions anew, then bring `MOVED` up to date."""
    assert moved() == []


def test_what_is_assumed_of_flower_s_parts():
    """The same in words: by these the reader of a moved part knows what to look for."""
    loop = importlib.import_module(LOOP)
    assert list(inspect.signature(loop._verify_fab).parameters) == ["fab", "trusted_entities"]
    taken = inspect.signature(loop._pull_and_store_message).parameters
    assert {"get_fab", "trusted_entities", "state"} <= set(taken)
    text = inspect.getsource(loop._pull_and_store_message)
    places = [
        text.index(part) for part in ("get_fab(", "_verify_fab(fab", "if not fab_verified", "state.store_fab")
    ]
    assert places == sorted(places), "a bundle is fetched, judged, refused by an error, and stored last"
    assert "_pull_and_store_message(\n                state=state" in inspect.getsource(
        loop.start_client_internal
    )


def test_a_changed_or_missing_part_is_noticed_by_name():
    """Flower as it is in another process, with one part after the other put aside or written anew."""
    text = (
        "import importlib, json\n"
        "from client.node import MOVED, moved\n"
        "assert moved() == []\n"
        "for module, name in MOVED:\n"
        "    m = importlib.import_module(module)\n"
        "    part = getattr(m, name)\n"
        "    delattr(m, name)\n"
        "    gone = moved()\n"
        "    setattr(m, name, lambda **parts: None)\n"
        "    print(json.dumps([f'{module}.{name}', gone, moved()]))\n"
        "    setattr(m, name, part)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=120
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(MOVED)
    for name, gone, other in lines:
        assert gone == [f"{name} is gone"]
        assert other == [f"{name} has changed"]


def test_a_node_does_not_start_beside_another_flower(tmp_path):
    text = (
        "import sys, importlib; sys.argv = ['node', '--socket', 'x', '--insecure']\n"
        f"m = importlib.import_module({LOOP!r}); m._verify_fab = lambda fab, entities: True\n"
        "from client.node import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert "_verify_fab has changed" in done.stderr
    assert "flwr 1.41.0 exactly" in done.stderr


def test_it_wants_to_know_its_socket_first(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "client.node", "--insecure"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode != 0
    assert "--socket" in done.stderr
    assert command(tmp_path / "s", "--insecure")[-3:] == ("--socket", str(tmp_path / "s"), "--insecure")


def test_source_digests_tell_functions_apart_and_builtins_have_none():
    assert source_digest(moved) != source_digest(command)
    assert source_digest(len) == ""


def test_a_service_that_is_away_counts_as_a_no(tmp_path):
    asked = []

    def away(digest):
        asked.append(digest)
        raise FederationError("site service", "nobody answers", "Start it", code="no-service")

    patience, node._PATIENCE_S = node._PATIENCE_S, 0.0
    try:
        assert not node._asked(away, "sha256:0")
    finally:
        node._PATIENCE_S = patience
    assert asked


def test_the_service_says_over_its_socket_what_was_approved(tmp_path):
    server, site = consortium(tmp_path), hospital(tmp_path)
    enrol(server, site)
    path = tmp_path / "run" / "service.sock"
    running = serve(SiteService(site, ToyDuties(site.name)), path)
    try:
        assert not approved(path, bytes_digest(b"a bundle"))
        assert not approved(path, "sha256:" + "é" * 10)
    finally:
        running.stop(grace=None).wait()
    with pytest.raises(FederationError):
        approved(path, bytes_digest(b"a bundle"), 0.5)


def test_virtual_hospitals_run_any_bundle_and_strangers_none(tmp_path):
    digest = bytes_digest(b"a bundle")
    assert toy_service(tmp_path, "virtual").approved(digest)
    assert not SiteService(hospital(tmp_path, "beta"), ToyDuties("beta")).approved(digest)


def test_a_question_whose_sender_was_killed_half_way_holds_the_node_for_seconds_only():
    """Flower would try again for three minutes, and the run that was submitted again would wait as long."""
    there = {"a": b"1", "b": b"2"}

    def pull_object(_run, number):
        if number not in there:
            raise ObjectUnavailableError(number)
        return there[number]

    pull = node.patient(pull_object, 0.2)
    assert pull_objects(["a", "b"], lambda number: pull(1, number)) == there
    with pytest.raises(ObjectPullError):
        pull(1, "c")


def test_what_a_server_has_named_and_not_sent_yet_is_looked_for_again_at_once():
    """Flower's own next look comes after a second, then two, then four."""
    looks = []

    def pull_object(_run, number):
        looks.append(number)
        if len(looks) < 4:
            raise ObjectUnavailableError(number)
        return b"1"

    pull, asked = node.patient(pull_object), []

    def asks(number):
        asked.append(number)
        return pull(1, number)

    assert pull_objects(["a"], asks) == {"a": b"1"}
    assert len(looks) == 4
    assert asked == ["a"], "Flower was not left to wait in its own way"


def test_the_keys_of_a_node_s_configuration_are_the_documented_ones(tmp_path):
    """A deployed node gets one, the approval page names it, and the courier reads no other that a server could set."""
    text = inspect.getsource(importlib.import_module("client.app"))
    read = set(re.findall(r'"([a-z-]+)" in config', text)) | set(re.findall(r'config\["([a-z-]+)"\]', text))
    assert (
        read
        == set(re.findall(r"^`([a-z-]+)` ", text, re.MULTILINE))
        == {"service-socket", "site-folder", "partition-id"}
    )
    assert re.findall(r"--node-config\", f'([a-z-]+)=", inspect.getsource(node)) == ["service-socket"]
    page = (Path(__file__).resolve().parents[2] / "docs" / "approval.md").read_text()
    assert "`service-socket`" in page
    assert not {"site-folder", "partition-id"} & set(re.findall(r"`([a-z-]+)`", page))
    assert text.index('"service-socket" in config') < text.index('"site-folder" in config'), "the socket wins"


class Store:
    """What the courier sees of the node's objects; like Flower's it takes nothing that it does not know."""

    def __init__(self, *numbers):
        self.there = dict.fromkeys(numbers, b"")

    def put(self, number, content):
        if number not in self.there:
            raise KeyError(number)
        self.there[number] = content

    def delete(self, number):
        del self.there[number]


def test_the_courier_gets_a_question_s_parts_as_they_come_and_its_end_last():
    """It may have taken in and forgotten them before Flower stores the last, and that is no failure."""
    contents = {"a": b"ArrayChunk 1", "b": b"Array 2", "m": b"Message 3"}
    store = Store(*contents)
    told: list[str] = []
    handing = node._Handing(store, lambda *numbers: told.extend(numbers))
    for number, content in contents.items():
        assert handing.on(number, content) == content
    assert store.there == {**contents, "m": b""}
    assert told == ["a", "b"]
    store.delete("a")
    for number, content in contents.items():
        handing.put(number, content)
    assert store.there == {"b": contents["b"], "m": contents["m"]}
    assert told == ["a", "b", "m"], "who waits for the end of a question is told of it"
    handing.delete("b")
    assert list(store.there) == ["m"]


def test_executor_and_courier_are_told_of_a_question_instead_of_looking_for_it():
    """Both wait at this process for the topics that the short way has for them; the rest of the state is Flower's."""

    class State:
        run = 5

        def create_task(self, **parts):
            return parts["run_id"]

        def store_message(self, message):
            return message.upper()

    told: list[str] = []
    telling = node._Telling(State(), lambda *topics: told.extend(topics))
    assert telling.create_task(run_id=3) == 3
    assert telling.store_message("a") == "A"
    assert told == [WORK, QUESTIONS]
    assert telling.run == 5
