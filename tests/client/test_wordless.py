"""What a node sends when Flower itself fails: a number, and no text that names a folder or an account."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.inflatable.inflatable_object import get_object_id, iterate_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode.nodestate import NodeStateFactory

import client.deployment
import server.launch
from client import wordless
from client.node import MOVED, main
from common import wire
from simulations.grid import InProcessGrid

loop = importlib.import_module(wordless.LOOP)
SAID = "<class 'OSError'>:<'No space left on device: /home/rohrammernutzer/.flwr/apps'>"


def sent(reply, push):
    """Every byte that Flower's loop sends for one reply: the message, its tree, its objects."""
    objects = ObjectStoreFactory()
    state, store = NodeStateFactory(objects).state(), objects.store()
    state.record_message_processing_start(reply.metadata.reply_to_message_id)
    state.record_message_processing_end(reply.metadata.reply_to_message_id)
    loop._insert_message(reply, state, store)
    wires, pushed = [], {}

    def send(message, tree, _seconds):
        wires.append((message, tree))
        return {one.object_id for one in iterate_object_tree(tree)}, "session"

    def push_object(_run, _session, number, content):
        pushed[number] = content

    push(state=state, object_store=store, send=send, push_object=push_object)
    assert not state.get_messages_legacy(is_reply=True), "it is sent once"
    ((message, tree),) = wires
    assert message.metadata.message_id == tree.object_id
    assert get_object_id(pushed[tree.object_id]) == tree.object_id
    return message, Message.inflate(pushed[tree.object_id]) if message.has_error() else None, pushed


def question():
    InProcessGrid([])  # says who this process is, as Flower's runtimes do
    asked = Message(RecordDict(), 7, "query")
    asked.metadata.__dict__["_message_id"] = "the question"
    return asked


def test_flower_alone_would_say_it():
    reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, SAID), reply_to=question())
    _, _, objects = sent(reply, loop._push_messages)
    assert any(b"rohrammernutzer" in content for content in objects.values())


@pytest.mark.parametrize(
    "code",
    [ErrorCode.CLIENT_APP_RAISED_EXCEPTION, ErrorCode.LOAD_CLIENT_APP_EXCEPTION, ErrorCode.INVALID_FAB],
)
def test_an_error_leaves_as_its_number(code):
    reply = Message(Error(code, SAID), reply_to=question())
    message, inflated, objects = sent(reply, wordless.wordless(loop._push_messages))
    for one in (message, inflated):
        assert (one.error.code, one.error.reason or "") == (code, "")
        assert one.metadata.reply_to_message_id == "the question"
    assert b"rohrammernutzer" not in b"".join(objects.values())


def test_an_answer_is_left_as_it_is():
    reply = Message(wire.to_records(b"an answer"), reply_to=question())
    message, _, objects = sent(reply, wordless.wordless(loop._push_messages))
    assert message is reply
    assert any(b"an answer" in content for content in objects.values())


def test_a_node_sends_by_it():
    """In another process, because it changes Flower there; and the part it changes is looked at before a node starts."""
    text = (
        "import importlib; from client import wordless; m = importlib.import_module(wordless.LOOP)\n"
        "before = m._push_messages; wordless.silence(); assert m._push_messages is not before"
    )
    subprocess.run([sys.executable, "-c", text], check=True, timeout=120)
    assert (wordless.LOOP, "_push_messages") in MOVED
    assert "    silence()\n" in inspect.getsource(main)
    assert "_push_messages(\n                state=state" in inspect.getsource(loop.start_client_internal)


@pytest.mark.parametrize(
    ("module", "words"), [("client.node", ["--socket", "s", "--help"]), ("common.executor", ["--help"])]
)
def test_no_flower_calls_home_whoever_starts_it(module, words):
    """Flower does unless it is told not to, and tells of the machine; whoever starts a node by hand may not know."""
    text = (
        # A node ends its process at once; here it may say something before.
        f"import os, sys, importlib; sys.argv = ['x', *{words!r}]; os._exit = sys.exit\n"
        f"try: importlib.import_module({module!r}).main()\n"
        "except SystemExit as ended: assert not ended.code, ended.code\n"
        "from flwr.supercore import telemetry; print('enabled:', telemetry.FLWR_TELEMETRY_ENABLED)"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FLWR_")}
    done = subprocess.run(
        [sys.executable, "-c", text],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "enabled: 0" in done.stdout, done.stderr[-2000:]


def test_whatever_is_kept_running_calls_nobody():
    for environment in (client.deployment.ENVIRONMENT, server.launch.ENVIRONMENT):
        assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
        assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
        assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
