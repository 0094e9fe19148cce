"""A reply whose sender was killed half way: nobody waits for the rest of it."""

from __future__ import annotations

import importlib
import inspect

import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore import constant as core
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectUnavailableError
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid

from server.arriving import Arriving
from server.streaming import streamed


class Store:
    """Objects of a SuperLink."""

    def __init__(self, there=(), never=()):
        self.there, self.never = set(there), set(never)

    def fetch(self, number):
        if number in self.never:
            raise ObjectPullError(number, "gone")
        if number not in self.there:
            raise ObjectUnavailableError(number)
        return b"content"


def _reply(asked, number):
    tree = ObjectTree(object_id=number, children=[ObjectTree(object_id=f"{number}-array")])
    return Message(metadata=Metadata(message_id=number, reply_to_message_id=asked)), tree


def _numbers(found):
    return [reply.metadata.message_id for reply, _tree in found]


def test_a_reply_that_is_still_on_its_way_is_kept_and_given_when_its_last_object_came():
    store = Store(there={"r1-array"})
    arriving = Arriving(store.fetch)
    assert _numbers(arriving.whole(["q1"], [_reply("q1", "r1")])) == []
    assert _numbers(arriving.whole(["q1"], [])) == []
    store.there.add("r1")
    assert _numbers(arriving.whole(["q2"], [])) == [], "nobody asked for it"
    assert _numbers(arriving.whole(["q1"], [])) == ["r1"]
    assert _numbers(arriving.whole(["q1"], [])) == [], "given once"


def test_one_that_stands_still_keeps_no_other_waiting():
    arriving = Arriving(Store(there={"r2"}).fetch)
    assert _numbers(arriving.whole(["q1", "q2"], [_reply("q1", "r1"), _reply("q2", "r2")])) == ["r2"]


def test_one_that_will_never_be_there_is_given_so_that_whoever_fetches_it_learns_so():
    arriving = Arriving(Store(never={"r1"}).fetch)
    assert _numbers(arriving.whole(["q1"], [_reply("q1", "r1")])) == ["r1"]


def test_a_second_reply_to_the_same_question_is_given_too_for_admission_to_refuse():
    arriving = Arriving(Store(there={"r1", "r2"}).fetch)
    assert _numbers(arriving.whole(["q1"], [_reply("q1", "r1"), _reply("q1", "r2")])) == ["r1", "r2"]


def test_flower_itself_would_wait_for_three_minutes():
    """What this is for; when it is less one day, this module may go."""
    assert core.OBJECT_PUSH_SESSION_TTL_SECONDS == 180
    assert core.PULL_MAX_TIME > 180


def test_flower_sends_an_object_after_those_it_is_made_of():
    content = RecordDict({"one": ArrayRecord({"a": Array("uint8", (3,), "consilium/1", b"abc")})})
    order = [tree.object_id for tree in iterate_object_tree(get_object_tree(content))]
    assert order == list(get_all_nested_objects(content))
    assert order[-1] == content.object_id


@pytest.mark.parametrize("number", ["q1", "q9"])
def test_nothing_announced_is_nothing(number):
    assert _numbers(Arriving(Store().fetch).whole([number], [])) == []


class Forgetful:
    """Flower's SuperLink as far as this needs it: it announces a reply once, and says of a second look that all is lost."""

    def __init__(self):
        self.looks = []

    def PullMessages(self, request):  # noqa: N802 - Flower's name
        self.looks.append(list(request.message_ids))
        found = PullAppMessagesResponse()
        if request.message_ids and len(self.looks) == 1:
            reply, tree = _reply("q1", "r1")
            found.messages_list.append(reply)
            found.message_object_trees.append(tree)
        return found

    def PullObject(self, _request):  # noqa: N802
        return PullObjectResponse(object_found=True, object_available=False)


def test_the_superlink_is_not_asked_again_for_what_it_announced(tmp_path):
    """It would answer that the question is not there any more, and a survey would take its site for silent."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 7, 0, 0
    inside = HttpGrid(token="t")
    inside._client = link = Forgetful()
    inside.set_run(Run.create_empty(7))
    grid = streamed(inside, tmp_path)
    assert list(grid.pull_messages(["q1"])) == []
    assert list(grid.pull_messages(["q1", "q2"])) == []
    assert link.looks == [["q1"], ["q2"]]


def test_flower_forgets_a_question_once_its_reply_is_announced():
    """Else a second look would give the reply again, and not an error."""
    handlers = importlib.import_module("flwr.superlink.servicer.runtime.runtime_handlers")
    text = inspect.getsource(handlers.pull_messages)
    places = [
        text.index(part) for part in ("get_message_res(", "state.delete_messages(", "store.get_object_tree(")
    ]
    assert places == sorted(places)
