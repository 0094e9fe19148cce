"""The short way: the same answers and the same refusals as Flower's long one, and waiting instead of asking again."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
from base64 import b64encode

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import PullMessagesRequest, RegisterNodeFleetRequest
from flwr.proto.message_pb2 import (
    Message,
    Metadata,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PushAppMessagesRequest
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    TASK_TOKEN_HEADER,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.superlink.main import create_app

from common.errors import SettingsError
from common.moved import changed, require
from common.news import News
from common.shortway import REPLIES, ShortWay, Way, for_object, of_object
from server.superlink import MOVED, seldom, ways

pytestmark = pytest.mark.filterwarnings("ignore:No path_separator:DeprecationWarning")
"""Of Flower's own migrations."""
PROTO = {"content-type": PROTOBUF_MEDIA_TYPE}
PULL, PUSH = "/v1/runtime/pull-object", "/v1/runtime/push-object"


def _asked(app, requests):
    """The status and content of each of these requests, one after the other."""

    async def ask():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://superlink") as client:
            return [await client.post(path, content=body, headers=head) for path, body, head in requests]

    return [(reply.status_code, reply.content) for reply in asyncio.run(ask())]


@pytest.fixture(scope="module")
def app():
    """Flower's app with a state in memory and a secret for executors."""
    made = create_app()
    made.state.superexec_auth_secret = b"s" * 32
    return made


def _signed(key, at=None):
    stamp = (at or dt.datetime.now(dt.UTC)).isoformat()
    return {
        **PROTO,
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes(key.public_key())).decode(),
        FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(key, stamp.encode())).decode(),
        TIMESTAMP_HEADER: stamp,
    }


def test_the_parts_of_flower_that_the_superlink_depends_on_are_as_they_were():
    """Fails with an upgrade of Flower: read the named functions anew, then bring `MOVED` up to date."""
    assert changed(MOVED) == []


def test_a_part_that_moved_is_named_and_nothing_starts():
    parts = dict(MOVED)
    parts[next(iter(parts))] = "0"
    with pytest.raises(SettingsError, match="has changed"):
        require({**parts, ("flwr.superlink.main", "of_tomorrow"): "0"}, "SuperLink")


def test_whoever_is_refused_on_the_long_way_is_refused_in_the_same_words_on_the_short_one(app):
    """No key, a wrong key, an old signature, no token, a wrong token, no secret, another type, no message at all."""
    key = ec.generate_private_key(ec.SECP384R1())
    old = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    mine = Node(node_id=5)
    said = PullMessagesRequest(node=mine).SerializeToString()
    stolen = _signed(key) | {FLEET_HTTP_SIGNATURE_HEADER: b64encode(b"x" * 64).decode()}
    bodies = {path: PullObjectRequest(node=mine, object_id="a" * 64).SerializeToString() for path in ways()}
    bodies["/v1/fleet/pull-messages"] = said
    bodies["/v1/runtime/acquire-task"] = AcquireTaskRequest().SerializeToString()
    heads = (PROTO, _signed(key), _signed(key, old), stolen, {**PROTO, TASK_TOKEN_HEADER: "t"}, {})
    requests = [(path, body, head) for path, body in bodies.items() for head in heads]
    requests += [(path, b"\xff\xff\xff", PROTO) for path in bodies]
    short, long = _asked(ShortWay(app, ways()), requests), _asked(app, requests)
    assert short == long
    assert {status for status, _ in short} <= {400, 401, 403, 415, 422, 426, 500}, "nobody was let in"
    assert 401 in {status for status, _ in short}


def test_a_node_that_is_let_in_is_answered_alike(app):
    key = ec.generate_private_key(ec.SECP384R1())
    register = RegisterNodeFleetRequest(public_key=public_key_to_bytes(key.public_key()))
    (status, _), *_rest = _asked(
        app, [("/v1/fleet/register-node", register.SerializeToString(), _signed(key))]
    )
    assert status == 200
    number = app.state.linkstate_factory.state().get_node_id_by_public_key(register.public_key)
    asked = PullMessagesRequest(node=Node(node_id=number)).SerializeToString()
    requests = [("/v1/fleet/pull-messages", asked, _signed(key))]
    assert _asked(ShortWay(app, ways()), requests) == _asked(app, requests) == [(200, b"")]


class Shelf:
    """Objects that come while somebody waits for them."""

    def __init__(self):
        self.there = {}
        self.looks = 0

    def pull(self, request):
        def again():
            self.looks += 1
            content = self.there.get(request.state.protobuf_request.object_id, b"")
            return PullObjectResponse(
                object_found=True, object_available=bool(content), object_content=content
            )

        return again

    async def seen(self):
        """Wait until somebody has looked."""
        while not self.looks:  # noqa: ASYNC110 - it is counted in another thread
            await asyncio.sleep(0.001)

    def push(self, request):
        asked = request.state.protobuf_request

        def again():
            self.there[asked.object_id] = asked.object_content
            return PushObjectResponse(stored=True)

        return again

    def ways(self, longest_s, **more):
        return {PULL: Way(self.pull, for_object(longest_s, **more)), PUSH: Way(self.push, news=of_object)}


def _post(client, path, message):
    return client.post(path, content=message.SerializeToString(), headers=PROTO)


def _with(app, work):
    async def run():
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://superlink", timeout=60
        ) as client:
            return await work(client)

    return asyncio.run(run())


def test_what_is_not_there_yet_is_answered_when_it_comes(app):
    shelf = Shelf()

    async def work(client):
        held = asyncio.ensure_future(_post(client, PULL, PullObjectRequest(object_id="a")))
        await shelf.seen()
        other = await _post(client, PUSH, PushObjectRequest(object_id="b", object_content=b"other"))
        assert other.status_code == 200
        assert not held.done()
        await _post(client, PUSH, PushObjectRequest(object_id="a", object_content=b"mine"))
        return PullObjectResponse.FromString((await held).content)

    found = _with(ShortWay(app, shelf.ways(600.0)), work)
    assert found.object_content == b"mine"
    assert shelf.looks == 2, "news of another object is no reason to look again"


def test_nobody_is_held_longer_than_said(app):
    shelf = Shelf()

    async def work(client):
        return PullObjectResponse.FromString(
            (await _post(client, PULL, PullObjectRequest(object_id="a"))).content
        )

    assert not _with(ShortWay(app, shelf.ways(0.05)), work).object_available


def test_what_comes_another_way_is_seen_at_the_next_look(app):
    shelf = Shelf()

    async def work(client):
        held = asyncio.ensure_future(_post(client, PULL, PullObjectRequest(object_id="a")))
        await shelf.seen()
        shelf.there["a"] = b"mine"
        return PullObjectResponse.FromString((await held).content)

    assert _with(ShortWay(app, shelf.ways(600.0, look_s=0.01)), work).object_content == b"mine"


def test_nothing_is_looked_up_for_a_caller_who_has_gone(app):
    """What is handed out counts as delivered: a node that was killed while it waited must not be given a question."""
    shelf = Shelf()
    short = ShortWay(app, shelf.ways(600.0))
    body = PullObjectRequest(object_id="a").SerializeToString()

    async def run():
        said = [{"type": "http.request", "body": body}]
        left = asyncio.Event()

        async def receive():
            if said:
                return said.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(_message):
            pass

        scope = {
            "type": "http",
            "method": "POST",
            "path": PULL,
            "raw_path": PULL.encode(),
            "query_string": b"",
            "headers": [(b"content-type", PROTOBUF_MEDIA_TYPE.encode())],
        }
        held = asyncio.ensure_future(short(scope, receive, send))
        await shelf.seen()
        left.set()
        await held

    asyncio.run(run())
    assert shelf.looks == 1


def test_everything_goes_the_long_way_while_somebody_logs_every_request(app):
    shelf = Shelf()
    app.state.fleet_event_log_plugin = object()
    try:
        short = ShortWay(app, shelf.ways(600.0))
    finally:
        app.state.fleet_event_log_plugin = None
    body = PullObjectRequest(object_id="a").SerializeToString()
    assert _asked(short, [(PULL, body, PROTO)]) == _asked(app, [(PULL, body, PROTO)])
    assert shelf.looks == 0


def test_what_is_asked_of_one_node_is_no_news_to_another():
    """With fifty nodes waiting, fifty questions would else be two and a half thousand looks."""
    path = "/v1/runtime/push-messages"
    sent = [Message(metadata=Metadata(dst_node_id=number)) for number in (5, 5, 6)]
    told = ways()[path].news(PushAppMessagesRequest(messages_list=sent), 0)
    waits = ways()["/v1/fleet/pull-messages"].hold.topic
    asked = {number: waits(PullMessagesRequest(node=Node(node_id=number))) for number in (5, 6, 7)}
    assert sorted(told) == sorted((asked[5], asked[6]))
    assert len(set(asked.values())) == 3


def test_a_thread_of_the_process_can_say_that_there_is_something(app):
    """A node's own loop stores the question for which its courier waits."""
    shelf, news = Shelf(), News()

    async def work(client):
        held = asyncio.ensure_future(_post(client, PULL, PullObjectRequest(object_id="a")))
        await shelf.seen()
        shelf.there["a"] = b"mine"
        threading.Thread(target=news.tell, args=("a",)).start()
        return PullObjectResponse.FromString((await held).content)

    assert _with(ShortWay(app, shelf.ways(600.0), news), work).object_content == b"mine"
    began = threading.Thread(target=news.wait, args=(600.0,), daemon=True)
    began.start()
    _with(
        ShortWay(app, shelf.ways(600.0), news),
        lambda client: _post(client, PUSH, PushObjectRequest(object_id="b")),
    )
    began.join(60)
    assert not began.is_alive(), "the loop waits for what comes from the courier"


def test_a_long_object_is_no_message_and_is_not_looked_into():
    """To read a field of some megabytes is to copy it, in the one thread that all requests share."""

    class Pushed:
        object_id = "a"
        object_content = b"Message 1"

    assert of_object(Pushed(), 100) == ("a", REPLIES)
    del Pushed.object_content
    assert of_object(Pushed(), 5 << 20) == ("a",)


def test_seldom_writes_add_up_and_lose_nothing():
    class State:
        def __init__(self):
            self.written, self.cleaned = [], 0

        def _cleanup_expired_task_tokens(self):
            self.cleaned += 1

        def store_traffic(self, run_id, *, bytes_sent, bytes_recv):
            self.written.append((run_id, bytes_sent, bytes_recv))

    state = seldom(State)()
    for _ in range(100):
        state.store_traffic(3, bytes_sent=2, bytes_recv=1)
        state._cleanup_expired_task_tokens()
    assert len(state.written) < 100
    assert state.cleaned < 100
    state._added_s = float("-inf")
    state.store_traffic(3, bytes_sent=2, bytes_recv=1)
    assert sum(sent for _, sent, _ in state.written) == 202
    assert sum(received for _, _, received in state.written) == 101
