"""The review page over HTTP: one page, a list, pictures, one way to decide."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from client.deid.text.found import Box
from client.intake.reasons import DISCARD, RELEASE, Reason
from client.review.desk import Action, ReviewDesk
from client.review.draw import VIEWS
from client.review.painter import Ask
from common.cli import place_of
from common.errors import ConsiliumError
from common.pages.page import render

_FOLDER: Final = Path(__file__).parent
_MOST_BODY_BYTES: Final = 2**20
_VIEW_NAMES: Final = {
    "display": "as the file asks",
    "whole": "whole range",
    "middle": "middle 98%",
    "dark": "dark parts",
    "bright": "bright parts",
}
T = TypeVar("T")


class Review:
    """The routes of the page, over a desk."""

    def __init__(self, desk: ReviewDesk) -> None:
        self._desk = desk
        self.nonce = ""
        """Of the page's own script and style; set by whoever guards the door."""
        # One thread for each: what a thread started must not die with it, and decisions come one after the other.
        self._drawing = ThreadPoolExecutor(1, "draw")
        self._deciding = ThreadPoolExecutor(1, "decide")

    def app(self) -> Starlette:
        """The ASGI application; it guards nothing by itself."""
        routes = [
            Route("/", self._page),
            Route("/waiting", self._waiting),
            Route("/picture/{name}", self._picture),
            Route("/decide", self._decide, methods=["POST"]),
        ]
        handlers: dict[Any, Any] = {ConsiliumError: _ours, Exception: _foreign}
        return Starlette(routes=routes, exception_handlers=handlers)

    def close(self) -> None:
        """Wait for a decision that is being carried out."""
        self._drawing.shutdown(cancel_futures=True)
        self._deciding.shutdown(cancel_futures=True)

    async def _page(self, _request: Request) -> Response:
        values: dict[str, object] = {
            "site": self._desk.name,
            "nonce": self.nonce,
            "views": _VIEW_NAMES,
            "release": {code: text for code, text in RELEASE.items() if code != "blanked"},
            "discard": DISCARD,
        }
        return HTMLResponse(render("review.html", _FOLDER, values))

    async def _waiting(self, _request: Request) -> Response:
        found = await self._in(self._drawing, self._desk.waiting)
        return JSONResponse([asdict(one) for one in found])

    async def _picture(self, request: Request) -> Response:
        asked = request.query_params
        view = asked.get("view", VIEWS[0])
        ask = Ask(
            _number(asked.get("frame")), view if view in VIEWS else VIEWS[0], _number(asked.get("side"), 1024)
        )
        name = request.path_params["name"]
        drawn = await self._in(self._drawing, lambda: self._desk.picture(name, ask))
        size = {
            "x-rows": drawn.rows,
            "x-columns": drawn.cols,
            "x-frames": drawn.frames,
            "x-frame": drawn.frame,
        }
        headers = {key: str(value) for key, value in size.items()}
        return Response(drawn.png, media_type="image/png", headers=headers)

    async def _decide(self, request: Request) -> Response:
        if request.headers.get("content-type", "") != "application/json":
            raise HTTPException(415)
        name, action, boxes, reason = _decision(await _body(request))
        decided = await self._in(self._deciding, lambda: self._desk.decide(name, action, boxes, reason))
        return JSONResponse(asdict(decided))

    async def _in(self, hands: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(hands, work)


async def _body(request: Request) -> bytes:
    held = b""
    async for piece in request.stream():
        held += piece
        if len(held) > _MOST_BODY_BYTES:
            raise HTTPException(413)
    return held


def _decision(body: bytes) -> tuple[str, Action, list[Box], Reason]:
    try:
        raw = json.loads(body)
        action: Action = raw["action"]
        boxes = [Box(*(_whole(side) for side in box)) for box in raw["boxes"]]
        words = [raw[key] for key in ("id", "reason", "note")]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise HTTPException(400) from None
    if action not in get_args(Action) or not all(isinstance(word, str) for word in words):
        raise HTTPException(400)
    return words[0], action, boxes, Reason(words[1], words[2])


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value


def _number(text: str | None, otherwise: int = 0) -> int:
    return (
        int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 7 else otherwise
    )


async def _ours(_request: Request, error: Exception) -> Response:
    if not isinstance(error, ConsiliumError):
        return await _foreign(_request, error)
    return JSONResponse({"code": error.code, "rule": error.rule, "remedy": error.remedy}, 409)


async def _foreign(_request: Request, error: Exception) -> Response:
    """The border: what is not ours loses its text, because it may name a patient."""
    rule = f"an unexpected {type(error).__name__} at {place_of(error)}"
    return JSONResponse({"code": "internal", "rule": rule, "remedy": "Please report this line"}, 500)
