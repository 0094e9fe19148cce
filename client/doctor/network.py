"""The way to the federation: name, proxy, TLS and who opens it, certificate, clock, speed.

Every look opens a connection of its own and says what it met, so that the first line that fails is the cause of
those below it. It works with the kit alone, before enrolment: the edge answers 404 to whoever has no certificate.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from client.doctor.check import Check, failed, passed, warned
from common.errors import FederationError

_TIMEOUT_S: Final = 10.0
_SKEW_S: Final = 120.0
"""What a message's time may differ by; above it everything that is signed is refused."""
_POST_BYTES: Final = 900_000
"""Below the edge's limit for a request that leads nowhere."""
_LONGEST_S: Final = 5.0
_MODEL_BYTES: Final = 30 << 20
"""The model that the time of a round is told for: 7.5 million numbers in 32 bits."""


@dataclass(frozen=True)
class Route:
    """Where the edge is and how to get there."""

    host: str
    port: int
    authority: str
    """The federation's pinned certificate, PEM."""
    proxy: tuple[str, int] | None = None
    proxy_login: tuple[str, str] | None = None
    certificate: tuple[Path, Path] | None = None
    """This hospital's certificate and key."""

    def __repr__(self) -> str:
        """Without the proxy's password."""
        return f"Route({self.host}:{self.port}, proxy={self.proxy})"

    def connect(self) -> socket.socket:
        """A plain connection to the edge, through the proxy where there is one.

        Raises:
            OSError: nothing answers.
            FederationError: `proxy`: it does not let us through.
        """
        raw = socket.create_connection(self.proxy or (self.host, self.port), timeout=_TIMEOUT_S)
        if self.proxy is not None:
            try:
                self._through(raw)
            except BaseException:
                raw.close()
                raise
        return raw

    def _through(self, raw: socket.socket) -> None:
        asked = f"CONNECT {self.host}:{self.port} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
        if self.proxy_login is not None:
            word = base64.b64encode(":".join(self.proxy_login).encode()).decode()
            asked += f"Proxy-Authorization: Basic {word}\r\n"
        raw.sendall(f"{asked}\r\n".encode())
        answer = b""
        # One byte at a time, because what follows the empty line is TLS and not ours to read.
        while not answer.endswith(b"\r\n\r\n") and len(answer) < 16_384:
            more = raw.recv(1)
            if not more:
                break
            answer += more
        status = answer.split(b" ")[1:2]
        if status != [b"200"]:
            number = status[0].decode("ascii", "replace") if status else "no status"
            remedy = (
                "Set federation.proxy_user and proxy_password_file"
                if number == "407"
                else f"Ask for CONNECT to {self.host}:{self.port} to be allowed in it"
            )
            raise FederationError(
                "the HTTP proxy", f"it answered CONNECT with {number}", remedy, code="proxy"
            )


def dns(route: Route) -> Iterator[Check]:
    """Whether the name to connect to has an address."""
    host = route.proxy[0] if route.proxy else route.host
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        yield failed(
            "DNS",
            f"{host} has no address here",
            "Enter it in the hospital's DNS, or use an address of the kit",
        )
        return
    addresses = sorted({str(entry[4][0]) for entry in found})
    yield passed("DNS", f"{host} is {', '.join(addresses)}")


def connection(route: Route) -> Iterator[Check]:
    """Whether the edge, or the proxy to it, can be reached."""
    name = "proxy" if route.proxy else "connection"
    started = time.monotonic()
    try:
        route.connect().close()
    except FederationError as error:
        yield failed(name, error.rule, error.remedy)
        return
    except OSError as error:
        where = f"{route.proxy[0]}:{route.proxy[1]}" if route.proxy else f"{route.host}:{route.port}"
        why = "no answer" if isinstance(error, TimeoutError) else "the connection is refused"
        yield failed(name, f"{where}: {why}", "Allow one outgoing TCP connection there in the firewall")
        return
    yield passed(
        name,
        f"open in {1000 * (time.monotonic() - started):.0f} ms" + (", by CONNECT" if route.proxy else ""),
    )


def tls(route: Route) -> Iterator[Check]:
    """Whether TLS 1.3 ends at the federation and nowhere before."""
    try:
        with closing(_secured(route, verified=True)) as secured:
            version, cipher = secured.version(), secured.cipher()
    except ssl.SSLCertVerificationError as error:
        yield _unverified(route, error)
        return
    except (ssl.SSLError, ConnectionError):
        yield failed("TLS", "the handshake is refused", "A firewall must let TLS 1.3 pass unopened")
        return
    except (OSError, FederationError):
        yield failed("TLS", "there is no connection", "See the line above")
        return
    yield passed(
        "TLS", f"{version}, {cipher[0] if cipher else 'unknown'}; the certificate is of the pinned authority"
    )


def _unverified(route: Route, error: ssl.SSLCertVerificationError) -> Check:
    issuer = _issuer(route)
    if error.verify_code in (9, 10):  # OpenSSL: not yet valid, has expired
        return failed(
            "TLS",
            "the edge's certificate is not valid at this machine's time",
            "Set the clock by NTP; else call the consortium",
        )
    if error.verify_code in (62, 64):  # OpenSSL: another host name, another address
        return failed("TLS", f"the certificate is not for {route.host}", "Use an address of the kit")
    return failed(
        "TLS",
        f"somebody between opens the connection: the certificate was issued by {issuer}",
        f"Exempt {route.host}:{route.port} from TLS inspection",
    )


def _issuer(route: Route) -> str:
    """Who issued the certificate that is shown here."""
    try:
        with closing(_secured(route, verified=False)) as secured:
            shown = secured.getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(shown).issuer.rfc4514_string() if shown else "nobody"
    except (OSError, ValueError, FederationError):
        return "somebody who does not say"


def clock(route: Route) -> Iterator[Check]:
    """The clock of this machine beside the edge's."""
    sent = time.time()
    with closing(_client(route)) as client:
        client.request("GET", "/")
        answer = client.getresponse()
        answer.read()
    told = answer.getheader("Date")
    if told is None:
        yield warned(
            "clock", "the edge does not say what time it is", "Check this machine's clock against NTP"
        )
        return
    apart = (sent + time.time()) / 2 - parsedate_to_datetime(told).timestamp()
    # The edge tells whole seconds, cut off: half a second of them is expected.
    apart -= 0.5
    seen = f"{abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} the federation"
    if abs(apart) > _SKEW_S:
        yield failed("clock", seen, "Set this machine's clock by NTP; messages may be two minutes apart")
    elif abs(apart) > _SKEW_S / 4:
        yield warned("clock", seen, "Set this machine's clock by NTP")
    else:
        yield passed("clock", seen)


def certificate(route: Route, now: datetime | None = None) -> Iterator[Check]:
    """How long this hospital's own certificate still lasts."""
    if route.certificate is None:
        return
    held = x509.load_pem_x509_certificate(route.certificate[0].read_bytes())
    days = (held.not_valid_after_utc - (now or datetime.now(UTC))).days
    if days < 0:
        yield failed(
            "certificate",
            f"it ended {-days} days ago",
            "Ask the consortium for a new invitation and enrol again",
        )
    elif days < 14:
        yield warned(
            "certificate",
            f"it ends in {days} days",
            "Run `consilium-site renew`; it should have renewed itself",
        )
    else:
        yield passed("certificate", f"valid for {days} days")


def bandwidth(
    route: Route, *, post_bytes: int = _POST_BYTES, longest_s: float = _LONGEST_S
) -> Iterator[Check]:
    """Upload measured for a few seconds, and what that means for a round.

    Requests that lead nowhere are answered at once, and their bodies are read before the next one on the same
    connection is: the last answer tells when everything has arrived.
    """
    body = bytes(post_bytes)
    sent, started = 0, time.monotonic()
    with closing(_client(route)) as client:
        while (spent := time.monotonic() - started) < longest_s and sent < _MODEL_BYTES:
            client.request("POST", "/", body=body)
            client.getresponse().read()
            sent += len(body)
        client.request("GET", "/")
        client.getresponse().read()
        spent = time.monotonic() - started
    per_s = sent / spent
    round_s = 2 * _MODEL_BYTES / per_s
    seen = f"{per_s / 1e6:.1f} MB/s up; a model of 30 MiB goes there and back in {round_s:.0f} s"
    if round_s > 600:
        yield warned("bandwidth", seen, "Ask for plans with update_bits = 8, or for a faster line")
    else:
        yield passed("bandwidth", seen)


def _secured(route: Route, *, verified: bool) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if verified else ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=route.authority)
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if route.certificate is not None:
        context.load_cert_chain(*route.certificate)
    raw = route.connect()
    try:
        return context.wrap_socket(raw, server_hostname=route.host)
    except BaseException:
        raw.close()
        raise


class _Client(http.client.HTTPConnection):
    """HTTP over a connection that is already there."""

    def __init__(self, route: Route, secured: ssl.SSLSocket) -> None:
        super().__init__(route.host, route.port, timeout=_TIMEOUT_S)
        self.sock = secured


def _client(route: Route) -> _Client:
    return _Client(route, _secured(route, verified=True))
