"""Who may see a page that is served here: whoever was given the printed address, in one browser, on this machine.

Laws, in order:
1. Another host's name in the request is refused: no page elsewhere can point its own name here (DNS rebinding).
2. The token of the printed address opens once; what it opens is a session cookie that no script reads and no
   other site sends, under a path that is itself a secret, because cookies know no ports.
3. Without the cookie nothing is answered. What changes something must come from this page itself (Origin).
4. Every answer forbids other sites to frame, store or read it, and its page to load anything from elsewhere.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECRET_BYTES: Final = 32
_NAMES: Final = ("127.0.0.1", "localhost")
_HEADERS: Final = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Door:
    """An ASGI application around another that lets in one session and no stranger.

    Args:
        app: what lies behind, served under `place`.
        port: on which the server listens.
        name: of the cookie and of the page; a word.
        entered: called when somebody came in with the token; where the page serves several, it asks for the next one.
    """

    def __init__(
        self, app: ASGIApp, port: int, name: str = "review", entered: Callable[[], None] | None = None
    ) -> None:
        self._name, self._entered_by = name, entered
        self._app = app
        self._hosts = frozenset(f"{name}:{port}" for name in _NAMES)
        self._port = port
        self._token: str | None = secrets.token_urlsafe(_SECRET_BYTES)
        self._session = secrets.token_urlsafe(_SECRET_BYTES)
        self.place = "/" + secrets.token_urlsafe(12)
        self.nonce = secrets.token_urlsafe(16)
        """Of the page's own script and style."""
        self._last = time.monotonic()

    @property
    def address(self) -> str:
        """What is printed; it opens once."""
        return f"http://127.0.0.1:{self._port}{self.place}/enter?token={self._token}"

    def renew(self) -> str:
        """One more address that opens once; the one before, where nobody used it, opens no longer."""
        self._token = secrets.token_urlsafe(_SECRET_BYTES)
        return self.address

    @property
    def idle_s(self) -> float:
        """Seconds since somebody who may was last here."""
        return time.monotonic() - self._last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in {**_HEADERS, "content-security-policy": self._rules()}.items():
                    headers[name] = value
            await send(message)

        answer = self._refusal(scope) or self._entered(scope)
        if answer is not None:
            await answer(scope, receive, guarded)
            return
        self._last = time.monotonic()
        inner = {**scope, "path": scope["path"].removeprefix(self.place), "root_path": ""}
        await self._app(inner, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return PlainTextResponse("This server has another name.", 421)
        if not scope["path"].startswith(self.place + "/"):
            return PlainTextResponse("Not here.", 404)
        if scope["path"] == self.place + "/enter":
            return None
        if not self._has_cookie(headers):
            return PlainTextResponse("Start again with the address that the command prints.", 403)
        if not _from_here(scope["method"], headers, hosts[0]):
            return PlainTextResponse("Not from another page.", 403)
        return None

    def _entered(self, scope: Scope) -> Response | None:
        """The answer to whoever brings the token; None for whoever is in already and goes on."""
        if scope["path"] != self.place + "/enter":
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        token, good = self._token, False
        if token is not None and scope["method"] == "GET":
            good = hmac.compare_digest(given.encode(), token.encode())
        if not good:
            return PlainTextResponse(
                "This address was used already, or is not the one that was printed.", 403
            )
        self._token = None
        self._last = time.monotonic()
        if self._entered_by is not None:
            self._entered_by()
        # A page that goes on by itself, not a redirect: a strict cookie would not follow from another page's link.
        answer = HTMLResponse(
            f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={self.place}/">'
            f'<title>Consilium</title><p><a href="{self.place}/">Go on</a></p>'
        )
        answer.set_cookie(
            f"consilium_{self._name}", self._session, path=self.place, httponly=True, samesite="strict"
        )
        return answer

    def _has_cookie(self, headers: Headers) -> bool:
        try:
            jar = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        held = jar.get(f"consilium_{self._name}")
        return held is not None and hmac.compare_digest(held.value.encode(), self._session.encode())

    def _rules(self) -> str:
        own = f"'nonce-{self.nonce}'"
        return (
            f"default-src 'none'; img-src 'self' blob:; connect-src 'self'; script-src {own}; style-src {own}; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )


def _from_here(method: str, headers: Headers, host: str) -> bool:
    """Whether a request comes from our own page, or from nobody's when it changes nothing."""
    site = headers.get("sec-fetch-site", "same-origin")
    changes = method not in ("GET", "HEAD")
    return site in ("same-origin", "none") and (not changes or headers.get("origin") == f"http://{host}")
