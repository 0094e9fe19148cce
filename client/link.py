"""A connection to the federation's edge: TLS 1.3, the pinned authority and no other, this hospital's certificate.

What goes wrong is said in the hospital's words: a proxy that breaks TLS open, a clock that is wrong, a
certificate that ended; never in those of a library.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx

from client.federation_settings import FederationSettings
from common.enrolment import Refused, parse
from common.errors import ConsiliumError, FederationError, SettingsError

_TIMEOUT_S: Final = 30.0
_LARGEST: Final = 64 << 20
_CLOCK: Final = (9, 10)
"""OpenSSL: not yet valid, has expired."""
ELSEWHERE: Final = ("unreachable", "proxy")
"""Codes of a way that does not lead to the edge: another of its addresses may."""
_NAME: Final = (62, 64)
"""OpenSSL: the certificate is for another host, or another address."""


@dataclass(frozen=True)
class Link:
    """Where the edge is, how to get there and what to show."""

    address: str
    authority: str
    """Pinned certificate of the federation's authority, PEM."""
    proxy: str | None = field(default=None, repr=False)
    """URL of an HTTP proxy with its user and password; never printed."""
    certificate: tuple[Path, Path] | None = None
    """This hospital's certificate and key; None before it has any."""
    others: tuple[str, ...] = ()
    """Addresses of the same edge, asked in turn where nothing answers at the first."""

    def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """One question and its answer.

        Raises:
            FederationError: `unreachable`, `wrong-ca`, `clock`, `wrong-address`, `certificate`, `proxy`, or the code
                of the federation's own refusal.
        """
        try:
            return self._asked(method, path, body)
        except FederationError as error:
            if error.code not in ELSEWHERE or not self.others:
                raise
        return replace(self, address=self.others[0], others=self.others[1:]).ask(method, path, body)

    def _asked(self, method: str, path: str, body: bytes) -> bytes:
        try:
            with httpx.Client(
                verify=self._context(), proxy=self.proxy, timeout=_TIMEOUT_S, trust_env=False
            ) as client:
                answer = client.request(method, f"https://{self.address}{path}", content=body)
        except httpx.ProxyError as error:
            raise _proxy(error) from None
        except httpx.InvalidURL:
            raise _unreachable(self.address) from None
        except httpx.HTTPError as error:
            raise _failed(error, self.address) from None
        if answer.status_code == 200 and len(answer.content) <= _LARGEST:
            return answer.content
        raise _refusal(answer)

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cadata=self.authority)
        if self.certificate is not None:
            certificate, key = self.certificate
            try:
                context.load_cert_chain(certificate, key)
            except (OSError, ssl.SSLError):
                raise FederationError(
                    "certificate",
                    "this hospital's certificate or its key cannot be read",
                    "Ask the consortium for a new invitation",
                    code="certificate",
                ) from None
        return context


def proxy_url(settings: FederationSettings, folder: Path) -> str | None:
    """The proxy with its password, for a connection; None where there is none.

    Raises:
        SettingsError: the password's file cannot be read.
    """
    if not settings.proxy:
        return None
    if not settings.proxy_user:
        return f"http://{settings.proxy}"
    word = proxy_password(settings, folder)
    return f"http://{quote(settings.proxy_user, safe='')}:{quote(word, safe='')}@{settings.proxy}"


def proxy_password(settings: FederationSettings, folder: Path) -> str:
    """The proxy's password; empty where none is set.

    Raises:
        SettingsError: its file cannot be read.
    """
    if not settings.proxy_password_file:
        return ""
    try:
        return (folder / settings.proxy_password_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise SettingsError(
            "federation.proxy_password_file", "the file cannot be read", "Check its path and rights"
        ) from None


def _refusal(answer: httpx.Response) -> ConsiliumError:
    """What the federation, its edge or something between said instead of an answer."""
    try:
        told = parse(Refused, answer.content)
    except FederationError:
        words = {
            403: ("certificate", "the edge does not accept this hospital's certificate"),
            404: ("not-there", "there is nothing at this address"),
            413: ("too-large", "the request is larger than the edge allows"),
            429: ("busy", "there were too many requests from here"),
        }
        code, rule = words.get(answer.status_code, ("unavailable", f"it answered {answer.status_code}"))
        return FederationError("the federation", rule, "Try again later, then ask the consortium", code=code)
    # These words come from outside; they are shown to a person here and never sent on.
    return FederationError(
        _line(told.subject), _line(told.rule), _line(told.remedy), code=_line(told.code)[:40]
    )


def _failed(error: httpx.HTTPError, address: str) -> FederationError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return _unreachable(address)
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code in _CLOCK:
            return FederationError(
                "the federation's certificate",
                "it is not valid at the time this machine's clock shows",
                "Set this machine's clock by NTP; if it is right, call the consortium",
                code="clock",
            )
        if cause.verify_code in _NAME:
            return FederationError(
                address,
                "its certificate is for another address",
                "Use an address of the kit",
                code="wrong-address",
            )
        return FederationError(
            address,
            "its certificate is not of the federation's authority",
            "A firewall or proxy that opens TLS must leave this connection alone; else this is not the kit of this server",
            code="wrong-ca",
        )
    return FederationError(
        address,
        "the TLS 1.3 connection was refused",
        "Check that nothing between opens TLS, and that this hospital's certificate has not ended",
        code="tls",
    )


def _proxy(error: httpx.ProxyError) -> FederationError:
    words = str(error).split()
    status = words[0] if words and words[0].isdigit() else ""
    rule = "it asks for a user and password" if status == "407" else f"it refuses to connect {status}".strip()
    remedy = (
        "Set federation.proxy_user and proxy_password_file"
        if status == "407"
        else "Allow the edge's address in it"
    )
    return FederationError("the HTTP proxy", rule, remedy, code="proxy")


def _unreachable(address: str) -> FederationError:
    return FederationError(
        address,
        "nothing answers there",
        "Check the network, the firewall, and federation.proxy in site.toml",
        code="unreachable",
    )


def _line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:300]
