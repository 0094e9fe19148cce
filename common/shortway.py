"""The short way to Flower's most frequent handlers, beside the long one that every other request takes.

Flower's SuperLink and SuperNode hand each request through half a dozen layers, each of which starts tasks of its own, also
for every 64 KiB of a body, and then asks for each dependency in another thread. That is most of what an object on its way
costs. Here a request for an object, for work or for a message is read, checked and answered in one thread: by Flower's own
functions for its types, its authentication, its handlers and its errors, in their order. Whatever is not named here, and
everything while Flower's tracing or its log of events is on, goes the long way as before.

A request that finds nothing yet is held until there is something or `Hold.longest_s` is over, instead of being asked again ten
times a second. Nothing is looked up for a caller who has gone meanwhile: what is handed out counts as delivered.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI
from flwr.supercore.constant import TASK_TOKEN_HEADER
from flwr.supercore.dependencies.runtime import get_runtime_handlers, get_runtime_state
from flwr.supercore.dependencies.superexec import authenticate_superexec_request
from flwr.supercore.dependencies.task import authenticate_task
from flwr.supercore.dependencies.version import VersionDependency
from flwr.supercore.error import http_error_translator
from flwr.supercore.protobuf.streaming import get_protobuf_stream_context
from flwr.supercore.protobuf.translation import (
    PROTOBUF_REQUEST_TYPES,
    ProtobufTranslationMiddleware,
)
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from common.news import News, Waiting

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Again = Callable[[], Any]
"""Looks once more, and gives the answer as Flower's protobuf message."""
Answer = Callable[[Request], Again]
"""Checks who asks (raises as Flower does) and gives what looks for the answer; runs in a thread."""
RUNTIME: Final = "/v1/runtime"
_GONE: Final = "http.disconnect"


@dataclass(frozen=True)
class Hold:
    """When a request waits for its answer."""

    empty: Callable[[Any], bool]
    """Whether an answer says that there is nothing yet."""
    topic: Callable[[Any], str]
    """What a request waits for."""
    longest_s: float
    look_s: float = float("inf")
    """How often it is looked in any case, where not all that could be waited for comes as a request."""


@dataclass(frozen=True)
class Way:
    """How the requests for one path are answered."""

    answer: Answer
    hold: Hold | None = None
    news: Callable[[Any, int], tuple[str, ...]] | None = None
    """For which topics a request of this path, with a body of so many bytes, is worth another look, once it is answered."""


class ShortWay:
    """Flower's app with some of its paths answered the short way.

    Args:
        app: Flower's.
        ways: by path, of requests that are posted.
        news: from and for other threads of this process.
    """

    def __init__(self, app: FastAPI, ways: Mapping[str, Way], news: News | None = None) -> None:
        self._app = app
        self._ways = {} if _watched(app) else dict(ways)
        self._waiting = Waiting()
        self._news = news
        self._listens = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        way = self._ways.get(scope["path"]) if scope["type"] == "http" else None
        if way is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._news is not None and not self._listens:
            self._listens = True
            self._news.listen(self._waiting)
        body = await _read(receive)
        if body is None:
            return
        request = Request({**scope, "app": self._app, "state": dict(scope.get("state", {}))})

        async def answered(_request: Request) -> Response:
            return await self._answered(way, request, body, receive)

        response = await http_error_translator(request, answered)
        await response(scope, receive, send)

    async def _answered(self, way: Way, request: Request, body: bytes, receive: Receive) -> Response:
        again = await run_in_threadpool(_begun, way.answer, request, body)
        asked = request.state.protobuf_request
        if way.hold is None:
            _, response = await run_in_threadpool(_looked, again, request)
        else:
            response = await self._held(way.hold, again, request, receive)
        if way.news is not None:
            self._waiting.tell(way.news(asked, len(body)))
            if self._news is not None:
                self._news.came()
        return response

    async def _held(self, hold: Hold, again: Again, request: Request, receive: Receive) -> Response:
        """The answer, waited for; Flower's `empty` one when the time is over."""
        until = asyncio.get_running_loop().time() + hold.longest_s
        topic = hold.topic(request.state.protobuf_request)
        gone = asyncio.ensure_future(_gone(receive))
        try:
            while True:
                with self._waiting.listening(topic) as news:
                    found, response = await run_in_threadpool(_looked, again, request)
                    left = until - asyncio.get_running_loop().time()
                    if left <= 0 or not hold.empty(found) or gone.done():
                        return response
                    pause = min(left, hold.look_s)
                    await asyncio.wait({news, gone}, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    return response
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone


def runtime(component: str, work: Hold, arriving: Hold, messages: Hold) -> dict[str, Way]:
    """The paths that apps and executors use often.

    Args:
        component: as Flower calls it in words on versions: `SuperLink` or `SuperNode`.
        work: how an executor waits for a task.
        arriving: how an app waits for an object that was named and has not come.
        messages: how an app waits for a message.
    """
    fits = VersionDependency(component_name=component, connection_name=f"Caller <-> {component} Runtime API")

    def of_task(name: str) -> Answer:
        def answer(request: Request) -> Again:
            fits(request)
            state = get_runtime_state(request)
            task = authenticate_task(request, request.headers.get(TASK_TOKEN_HEADER), state)
            handler = getattr(get_runtime_handlers(request), name)
            return lambda: handler(request.state.protobuf_request, state, task)

        return answer

    def task(request: Request) -> Again:
        fits(request)
        state = get_runtime_state(request)
        authenticate_superexec_request(request, state, "/flwr.proto.Runtime/AcquireTask")
        handlers = get_runtime_handlers(request)
        return lambda: handlers.acquire_task(request.state.protobuf_request, state)

    return {
        f"{RUNTIME}/acquire-task": Way(task, work),
        f"{RUNTIME}/pull-object": Way(of_task("pull_object"), arriving),
        f"{RUNTIME}/push-object": Way(of_task("push_object"), news=of_object),
        f"{RUNTIME}/pull-messages": Way(of_task("pull_messages"), messages),
        f"{RUNTIME}/push-messages": Way(of_task("push_messages"), news=_addressed),
    }


QUESTIONS: Final = "questions"
REPLIES: Final = "replies"
WORK: Final = "work"
"""Topics of whoever waits for a message or a task; no object has such a number."""
_SHORT: Final = 1 << 20
"""Bytes of a request beyond which it holds no message's own object, which is metadata and numbers of others."""
_ROOT: Final = b"Message "
"""Begins the object that a message is; it comes last of all that belongs to it, or last but one."""


def for_work(longest_s: float, look_s: float) -> Hold:
    """How an executor waits for a task."""
    return Hold(lambda found: not found.HasField("task"), lambda _asked: WORK, longest_s, look_s)


def questions_for(node: int) -> str:
    """The topic of one node's questions: what is asked of another is no news to it."""
    return f"{QUESTIONS} for {node}"


def _addressed(asked: Any, _size: int) -> tuple[str, ...]:
    return tuple({questions_for(message.metadata.dst_node_id) for message in asked.messages_list})


def for_message(topic: str | Callable[[Any], str], longest_s: float, look_s: float = float("inf")) -> Hold:
    """How somebody waits for a message: for news of this topic, or of what it makes of the request."""
    of = topic if callable(topic) else lambda _asked: topic
    return Hold(lambda found: not found.messages_list, of, longest_s, look_s)


def for_object(longest_s: float, look_s: float = float("inf")) -> Hold:
    """How somebody waits for an object that was named and has not come."""
    return Hold(
        lambda found: found.object_found and not found.object_available,
        lambda asked: str(asked.object_id),
        longest_s,
        look_s,
    )


def of_object(asked: Any, size: int) -> tuple[str, ...]:
    """For what an object that was pushed is news."""
    # To look at the content is to copy it, and what a message begins with is short.
    whole = size <= _SHORT and asked.object_content.startswith(_ROOT)
    return (asked.object_id, *((REPLIES,) if whole else ()))


def _watched(app: FastAPI) -> bool:
    """Whether somebody wants to see every request on Flower's long way."""
    plugins = ("control_event_log_plugin", "fleet_event_log_plugin")
    logged = any(getattr(app.state, name, None) is not None for name in plugins)
    return logged or os.environ.get("FLWR_TRACING_ENABLED") == "1"


async def _read(receive: Receive) -> bytes | None:
    """The body; None where the caller has gone."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == _GONE:
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != _GONE:
        pass


def _begun(answer: Answer, request: Request, body: bytes) -> Again:
    """In a thread: the request's type, then who asks."""
    ProtobufTranslationMiddleware._check_request_media_type(request)  # noqa: SLF001 - what this module is for
    kind = PROTOBUF_REQUEST_TYPES[("POST", request.url.path)]
    request.state.protobuf_request = ProtobufTranslationMiddleware._parse_request(body, kind)  # noqa: SLF001
    return answer(request)


def _looked(again: Again, request: Request) -> tuple[Any, Response]:
    """In a thread: the answer, and as bytes."""
    found = again()
    context = get_protobuf_stream_context(request)
    return found, ProtobufTranslationMiddleware._response_for(found, context)  # noqa: SLF001
