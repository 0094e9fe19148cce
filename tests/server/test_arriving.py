"""A reply whose sender was killed half way: nobody waits for the rest of it."""

from __future__ import annotations

import importlib
import inspect
import threading
import time

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

from common.errors import StorageError
from server.arriving import TOGETHER, Arriving
from server.streaming import streamed

LONG_S = 60.0


class Shelf:
    """Objects of a SuperLink, and what it announces; a reply here is two objects, an array and itself."""

    def __init__(self, *announced, there=(), never=()):
        self.there, self.never = set(there), set(never)
        self.announced = list(announced)
        self.now = self.ended = 0
        self.open, self.too_many = threading.Event(), threading.Event()
        self.open.set()
        self._lock = threading.Lock()
        self.arriving = Arriving(self.look, self.pull, self.fetched)

    def look(self, numbers):
        with self._lock:
            found = [r for r in self.announced if r[0].metadata.reply_to_message_id in numbers]
            self.announced = [r for r in self.announced if r not in found]
        return found

    def pull(self, number):
        with self._lock:
            self.now += 1
            if self.now > TOGETHER:
                self.too_many.set()
        self.open.wait(LONG_S)
        with self._lock:
            self.now -= 1
        if number in self.never:
            raise ObjectPullError(number, "gone")
        if number not in self.there:
            raise ObjectUnavailableError(number)
        return b"content"

    def fetched(self, announced, fetch):
        try:
            fetch(announced[1].children[0].object_id)
            fetch(announced[1].object_id)
        except ObjectPullError:
            return f"{announced[1].object_id} is gone"
        self.ended += 1
        return announced[1].object_id

    def until(self, asked, count):
        """All that is given until so many came; fails when they do not."""
        found, ends = [], time.monotonic() + LONG_S
        while len(found) < count and time.monotonic() < ends:
            found += self.arriving.replies(asked)
        return found


def _reply(asked, number):
    tree = ObjectTree(object_id=number, children=[ObjectTree(object_id=f"{number}-array")])
    return Message(metadata=Metadata(message_id=number, reply_to_message_id=asked)), tree


def _whole(*numbers):
    return {part for number in numbers for part in (number, f"{number}-array")}


def test_a_reply_that_is_still_on_its_way_is_kept_and_given_once_when_its_last_object_came():
    shelf = Shelf(_reply("q1", "r1"), there={"r1-array"})
    assert list(shelf.arriving.replies(["q1"])) == []
    shelf.there.add("r1")
    assert list(shelf.arriving.replies(["q2"])) == [], "nobody asked for it"
    assert shelf.until(["q1"], 1) == ["r1"]
    assert list(shelf.arriving.replies(["q1"])) == [], "given once"


def test_those_that_stand_still_keep_no_other_waiting():
    """More of them than are fetched at once: nodes that were killed while they sent."""
    dead = [_reply(f"q{number}", f"r{number}") for number in range(TOGETHER + 2)]
    shelf = Shelf(*dead, there={f"r{number}-array" for number in range(TOGETHER + 2)})
    asked = [f"q{number}" for number in range(TOGETHER + 3)]
    assert list(shelf.arriving.replies(asked)) == []
    last = TOGETHER + 2
    shelf.announced = [_reply(f"q{last}", f"r{last}")]
    shelf.there |= _whole(f"r{last}")
    assert shelf.until(asked, 1) == [f"r{last}"]


def test_one_that_will_never_be_there_is_given_as_such():
    assert Shelf(_reply("q1", "r1"), never={"r1-array"}).until(["q1"], 1) == ["r1 is gone"]


def test_a_second_reply_to_the_same_question_is_given_too_for_admission_to_refuse():
    shelf = Shelf(_reply("q1", "r1"), _reply("q1", "r2"), there=_whole("r1", "r2"))
    assert sorted(shelf.until(["q1"], 2)) == ["r1", "r2"]


def test_what_goes_wrong_in_a_thread_is_raised_where_the_reply_is_asked_for():
    """A full disk ends the run by its name; it does not leave it waiting for ever."""

    def full(_announced, _fetch):
        raise StorageError("updates", "it cannot be written", "Free space")

    shelf = Shelf(_reply("q1", "r1"))
    shelf.arriving = Arriving(shelf.look, shelf.pull, full)
    with pytest.raises(StorageError):
        shelf.until(["q1"], 1)

    def lost(_numbers):
        raise OSError

    with pytest.raises(OSError):
        list(Arriving(lost, shelf.pull, full).replies(["q1"]))


def test_the_next_is_fetched_while_the_server_works_on_one():
    replies = [_reply(f"q{number}", f"r{number}") for number in range(2)]
    shelf = Shelf(*replies, there=_whole("r0", "r1"))
    given = shelf.arriving.replies(["q0", "q1"])
    first = next(given)
    ends = time.monotonic() + LONG_S
    while shelf.ended < 2 and time.monotonic() < ends:
        time.sleep(0.001)
    assert shelf.ended == 2, "nobody had asked for the second yet"
    assert {first, *given} == {"r0", "r1"}


def test_no_more_than_some_are_fetched_at_once():
    """One object of each is in memory, whatever the number of hospitals."""
    count = TOGETHER + 4
    asked = [f"q{number}" for number in range(count)]
    shelf = Shelf(*(_reply(f"q{number}", f"r{number}") for number in range(count)))
    shelf.there = _whole(*(f"r{number}" for number in range(count)))
    shelf.open.clear()
    assert list(shelf.arriving.replies(asked)) == []
    assert not shelf.too_many.wait(0.5)
    shelf.open.set()
    assert set(shelf.until(asked, count)) == {f"r{number}" for number in range(count)}
    assert not shelf.too_many.is_set()


def test_flower_itself_would_wait_for_three_minutes():
    """What this is for; when it is less one day, this module may go."""
    assert core.OBJECT_PUSH_SESSION_TTL_SECONDS == 180
    assert core.PULL_MAX_TIME > 180


def test_flower_sends_an_object_after_those_it_is_made_of():
    content = RecordDict({"one": ArrayRecord({"a": Array("uint8", (3,), "consilium/1", b"abc")})})
    order = [tree.object_id for tree in iterate_object_tree(get_object_tree(content))]
    assert order == list(get_all_nested_objects(content))
    assert order[-1] == content.object_id


def test_nothing_announced_is_nothing():
    assert list(Shelf().arriving.replies(["q1"])) == []


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
