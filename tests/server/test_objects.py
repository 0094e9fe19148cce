"""Long objects in files beside the SuperLink's database: what is there, what is gone, and what a kill leaves."""

from __future__ import annotations

import contextlib
import threading

import pytest
from flwr.app.message.arraychunk import ArrayChunk
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.object_store.object_store import NoObjectInStoreError
from flwr.supercore.object_store.sql_object_store import SqlObjectStore

from server.objects import FileObjectStore
from server.superlink import in_turn

pytestmark = pytest.mark.filterwarnings("ignore:No path_separator:DeprecationWarning")
"""Of Flower's own migrations."""
RUN = 7


def _chunk(size: int, fill: int = 1) -> tuple[str, bytes]:
    chunk = ArrayChunk(memoryview(bytes([fill]) * size))
    return chunk.object_id, chunk.deflate()


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "superlink.sqlite"), tmp_path / "objects"


@pytest.fixture
def store(place):
    made = FileObjectStore(*place)
    made.initialize()
    return made


LONG, SHORT = _chunk(1 << 20), _chunk(100)


def test_long_contents_are_files_and_short_ones_are_rows(store, place):
    for number, content in (LONG, SHORT):
        assert store.preregister(RUN, ObjectTree(object_id=number)) == [number]
        assert store.get(number) == b"", "it was named and has not come"
        store.put(number, content)
        assert store.get(number) == content
        assert store.preregister(RUN, ObjectTree(object_id=number)) == [], "it need not come again"
    assert [path.name for path in place[1].iterdir()] == [LONG[0]]


def test_what_is_not_what_its_number_says_is_not_kept(store, place):
    store.preregister(RUN, ObjectTree(object_id=LONG[0]))
    with pytest.raises(ValueError, match="does not match"):
        store.put(LONG[0], _chunk(1 << 20, fill=2)[1])
    assert store.get(LONG[0]) == b""
    assert list(place[1].iterdir()) == []


def test_what_nobody_named_is_not_kept(store):
    with pytest.raises(NoObjectInStoreError):
        store.put(*LONG)
    with pytest.raises(NoObjectInStoreError):
        store.put(*SHORT)
    assert store.get(LONG[0]) is None


def test_a_file_goes_with_its_row_and_not_before(store, place):
    """An object that belongs to two messages stays until the second is forgotten too."""
    parents = [_chunk(10, fill=number)[0] for number in (5, 6)]
    for parent in parents:
        store.preregister(RUN, ObjectTree(object_id=parent, children=[ObjectTree(object_id=LONG[0])]))
    store.put(*LONG)
    store.delete(parents[0])
    assert store.get(LONG[0]) == LONG[1]
    store.delete(parents[1])
    assert store.get(LONG[0]) is None
    assert list(place[1].iterdir()) == []


def test_a_run_s_end_leaves_no_file(store, place):
    store.preregister(RUN, ObjectTree(object_id=LONG[0]))
    store.put(*LONG)
    store.delete_objects_in_run(RUN)
    assert list(place[1].iterdir()) == []


def test_everything_is_there_again_after_a_kill_and_half_files_are_not(store, place):
    store.preregister(RUN, ObjectTree(object_id=LONG[0]))
    store.put(*LONG)
    other = _chunk(1 << 20, fill=9)[0]
    (place[1] / other).write_bytes(b"of no row")
    (place[1] / f"{other}.123").write_bytes(b"half")
    again = FileObjectStore(*place)
    again.initialize()
    assert again.get(LONG[0]) == LONG[1]
    assert [path.name for path in place[1].iterdir()] == [LONG[0]]


def test_a_lost_file_counts_as_lost_and_not_as_an_object(store, place):
    store.preregister(RUN, ObjectTree(object_id=LONG[0]))
    store.put(*LONG)
    (place[1] / LONG[0]).unlink()
    assert store.get(LONG[0]) is None


def test_a_database_of_flower_s_own_store_is_read_as_it_is(place):
    theirs = SqlObjectStore(place[0])
    theirs.initialize()
    theirs.preregister(RUN, ObjectTree(object_id=LONG[0]))
    theirs.put(*LONG)
    ours = FileObjectStore(*place)
    ours.initialize()
    assert ours.get(LONG[0]) == LONG[1]
    ours.delete(LONG[0])
    assert ours.get(LONG[0]) is None


def test_a_content_is_ready_before_its_turn_and_gets_its_name_in_it(store, place):
    """What is laid down is checked once and written once; in the turn it is renamed."""
    store.preregister(RUN, ObjectTree(object_id=LONG[0]))
    with store.laid_down(*LONG):
        (beside,) = place[1].iterdir()
        assert beside.read_bytes() == LONG[1]
        assert beside.name != LONG[0]
        inode = beside.stat().st_ino
        store.put(*LONG)
    (kept,) = place[1].iterdir()
    assert (kept.name, kept.stat().st_ino) == (LONG[0], inode)
    assert store.get(LONG[0]) == LONG[1]


def test_what_was_laid_down_and_not_put_is_forgotten(store, place):
    with store.laid_down(*LONG):
        pass
    assert list(place[1].iterdir()) == []


def test_a_content_that_lies_about_itself_is_not_laid_down_and_not_put(store, place):
    other = _chunk(1 << 20, fill=2)[1]
    store.preregister(RUN, ObjectTree(object_id=LONG[0]))
    with store.laid_down(LONG[0], other):
        assert list(place[1].iterdir()) == []
        with pytest.raises(ValueError, match="does not match"):
            store.put(LONG[0], other)
    with store.laid_down(*LONG), pytest.raises(ValueError, match="does not match"):
        store.put(LONG[0], other)
    assert store.get(LONG[0]) == b""
    assert list(place[1].iterdir()) == []


def test_writers_take_turns_in_this_process_and_nobody_looks_again_and_again(store):
    """Beside another's open transaction a writer waits for that one's end; SQLite itself would give up after a while."""
    entered, written = threading.Event(), []

    def write():
        entered.set()
        with store.session():
            written.append(True)

    with store.session():
        other = threading.Thread(target=write)
        other.start()
        assert entered.wait(30)
        other.join(0.2)
        assert written == []
        with store.session():
            assert written == [], "the same thread goes in again"
    other.join(30)
    assert written == [True]


def test_the_state_lays_an_object_down_before_its_turn_and_opens_every_transaction_in_it(store, place):
    """The slow half, checking and writing, is over when others have to wait; and others do wait."""
    seen = []

    class State:
        object_store = store

        def session(self):
            seen.append(("turn is ours", not _free(store)))
            return contextlib.nullcontext("a session")

        def store_object(self, _run, _session, object_id, content):
            seen.append(("on disk", [path.read_bytes() for path in place[1].iterdir()] == [content]))
            seen.append(("turn is free", _free(store)))
            store.put(object_id, content)
            return True

    store.preregister(RUN, ObjectTree(object_id=LONG[0]))
    state = in_turn(State)()
    with state.session() as session:
        assert session == "a session"
    assert state.store_object(RUN, "one", *LONG)
    assert store.get(LONG[0]) == LONG[1]
    assert seen == [("turn is ours", True), ("on disk", True), ("turn is free", True)]


def _free(store) -> bool:
    """Whether another thread could take its turn now."""
    got = []

    def look():
        if store.turn.acquire(blocking=False):
            got.append(True)
            store.turn.release()

    other = threading.Thread(target=look)
    other.start()
    other.join(30)
    return bool(got)
