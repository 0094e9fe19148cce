"""How this hospital joins its federation, and keeps its certificate fresh.

<state>/federation/kit.json  which federation, and where it is; its keys: `client.keyfiles`

1. Every key is made here, is on disk before its public half is sent, and never leaves.
2. Nothing that the server says is believed before its certificate chains to the authority in the kit.
3. A certificate is taken only if it is this hospital's, of that authority, and for the key that is here.
4. What asks for one has its size, SHA-256 and addressee in the connection's log before it is sent, as all that leaves.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec

from client.connection_log import path_of
from client.keyfiles import enrolling, next_key, node_public, request_of, settle, take
from client.link import ELSEWHERE, Link, proxy_url
from client.membership import (
    ENROLMENT,
    FOLDER,
    IDENTITY,
    Membership,
    check,
    identity_of,
    load_membership,
    offer,
    pin,
    pinned,
)
from common.audit import AuditLog
from common.certificates import Certificate, belongs, certified, read_certificate
from common.checkpoints import write_whole
from common.enrolment import PREFIX, Answer, Ask, Renew, parse, sign
from common.errors import FederationError, StorageError
from common.identity import Identity, PublicKey, fingerprint
from common.kit import Kit, check_code
from common.pki import RENEW_DAYS
from common.roster import load_roster, verify_roster
from common.types import Digest, SiteName

if TYPE_CHECKING:
    from client.site import Site

_KIT: Final = "kit.json"
Clock = Callable[[], float]


@dataclass(frozen=True)
class Enrolment:
    """How far an enrolment has come."""

    federation: str
    admitted: bool
    fingerprint: Digest
    """Of this hospital's key; read to the consortium by telephone."""
    ends: datetime | None = None
    """When the certificate ends; None before there is one."""


def enrol(site: Site, kit: Kit, code: str, clock: Clock = time.time) -> Enrolment:
    """Ask to be enrolled, or ask again; may be repeated at any time.

    Args:
        site: this hospital.
        kit: as `common.kit.read_kit` read it for this hospital.
        code: the one-time code; empty when it was sent before.
        clock: seconds since 1970.

    Raises:
        InputError: `kit-code`.
        FederationError: as `Link.ask`; `server-key` when the site is in another federation; `certificate` or
            `roster` when what came back is not to be believed; a refusal of the federation by its own code.
    """
    if code:
        check_code(kit, code)
    _same_federation(site, kit)
    # A new key is made only by who was invited; a lost one is not replaced in passing.
    identity = identity_of(site) if code else Identity.load(site.secrets / IDENTITY)
    if not code and not enrolling(site) and kit_of(site) is not None:
        link_of(site).ask("GET", f"{PREFIX}/roster")
        return Enrolment(kit.federation, True, fingerprint(identity.public), certificate(site).ends)
    key = next_key(site)
    ask = Ask(
        federation=kit.federation,
        site=site.name,
        identity=identity.public,
        node=node_public(site),
        request=request_of(site, key),
        time=int(clock()),
        code=code,
    )
    signed = sign(ask, identity, kit.server)
    said, kit = _first_link(site, kit, _written_down(site, signed, kit.server))
    answer = parse(Answer, said)
    if not answer.admitted:
        return Enrolment(kit.federation, admitted=False, fingerprint=fingerprint(identity.public))
    roster = load_roster(answer.roster.encode())
    verify_roster(roster, kit.server)
    check(site, roster, kit.server, identity)
    given = _believed(site, answer.certificate, kit.authority, key)
    write_whole(site.state / FOLDER / _KIT, json.dumps(asdict(kit), indent=1).encode())
    take(site, given)
    pin(site, roster, kit.server)
    return Enrolment(kit.federation, admitted=True, fingerprint=fingerprint(identity.public), ends=given.ends)


def renew(site: Site, clock: Clock = time.time, *, always: bool = False) -> Certificate | None:
    """Change the certificate where it ends within `RENEW_DAYS`, and look for a newer roster.

    Args:
        site: an enrolled hospital.
        clock: seconds since 1970.
        always: change it however long it lasts.

    Returns:
        The new certificate, upon which the tunnel reads its files again; None when the old one stays.

    Raises:
        FederationError: `not-enrolled`, or as `Link.ask`; the old certificate stays then.
    """
    known, kit, link = _membership(site)
    now = datetime.fromtimestamp(clock(), UTC)
    given = None
    if not enrolling(site) and (always or certificate(site).left(now).days < RENEW_DAYS):
        key = next_key(site)
        asked = sign(Renew(request_of(site, key), int(clock())), known.identity, known.server_key)
        body = _written_down(site, asked, known.server_key)
        answer = parse(Answer, link.ask("POST", f"{PREFIX}/renew", body))
        given = _believed(site, answer.certificate, kit.authority, key)
        take(site, given)
        link = link_of(site)
    offer(site, load_roster(link.ask("GET", f"{PREFIX}/roster")))
    return given


def link_of(site: Site) -> Link:
    """The connection of an enrolled hospital to its federation.

    Raises:
        FederationError: `not-enrolled`.
        SettingsError, StorageError: a file of it cannot be read.
    """
    return _membership(site)[2]


def certificate(site: Site) -> Certificate:
    """The hospital's present certificate; finishes a change that was cut short.

    Raises:
        FederationError: `certificate` when there is none that fits its key.
    """
    settle(site)
    path = site.secrets / "tls.crt"
    if not path.exists():
        raise FederationError(
            "tls.crt", "this hospital has no certificate", "Run `consilium-site enrol`", code="certificate"
        )
    return read_certificate(path.read_text())


def kit_of(site: Site) -> Kit | None:
    """The federation that this hospital was enrolled in; None where it was not.

    Raises:
        StorageError: `membership` when the file cannot be read.
    """
    try:
        values = json.loads((site.state / FOLDER / _KIT).read_text(encoding="utf-8"))
        addresses = tuple(str(one) for one in values["addresses"])
        names = (str(values["federation"]), SiteName(str(values["site"])))
        return Kit(*names, addresses, str(values["authority"]), PublicKey(str(values["server"])))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise StorageError(
            _KIT, "it cannot be read", "Restore state/federation from backup", code="membership"
        ) from None


def _membership(site: Site) -> tuple[Membership, Kit, Link]:
    known, kit = load_membership(site), kit_of(site)
    if known is None or kit is None:
        raise FederationError(
            "this hospital",
            "it has not been enrolled",
            "Run `consilium-site enrol kit.zip`",
            code="not-enrolled",
        )
    certificate(site)
    pair = (site.secrets / "tls.crt", site.secrets / "tls.key")
    address, *others = _addresses(site, kit)
    proxy = proxy_url(site.federation, site.folder)
    return known, kit, Link(address, kit.authority, proxy, pair, tuple(others))


def _written_down(site: Site, asked: Ask | Renew, server: PublicKey) -> bytes:
    """The bytes of a request, once the connection's log has their size and digest.

    Raises:
        StorageError: it cannot be written; then nothing is sent.
    """
    body = json.dumps(asdict(asked)).encode()
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    about: dict[str, object] = {"bytes": len(body), "digest": digest, "to": fingerprint(server)}
    AuditLog(path_of(site)).append(ENROLMENT, kind=type(asked).__name__.lower(), **about)
    return body


def _addresses(site: Site, kit: Kit) -> tuple[str, ...]:
    return (site.federation.address,) if site.federation.address else kit.addresses


def _first_link(site: Site, kit: Kit, body: bytes) -> tuple[bytes, Kit]:
    """Ask without a certificate, at the kit's addresses in turn until one answers.

    Returns:
        The answer, and the kit with the address that gave it before the others, since all that follows goes there.
    """
    proxy = proxy_url(site.federation, site.folder)
    *earlier, last = _addresses(site, kit)
    for address in earlier:
        try:
            said = Link(address, kit.authority, proxy).ask("POST", f"{PREFIX}/enrol", body)
        except FederationError as error:
            if error.code not in ELSEWHERE:
                raise
        else:
            return said, _reached(kit, address)
    return Link(last, kit.authority, proxy).ask("POST", f"{PREFIX}/enrol", body), _reached(kit, last)


def _reached(kit: Kit, address: str) -> Kit:
    """The kit with this address of its own first."""
    ordered = sorted(kit.addresses, key=lambda known: known != address)
    return replace(kit, addresses=tuple(ordered))


def _same_federation(site: Site, kit: Kit) -> None:
    known = pinned(site)
    if known is not None and known != (kit.federation, kit.server):
        raise FederationError(
            "the kit",
            f"this hospital is a member of {known[0]}, whose server's key is another",
            "Make a new site with `consilium-site init` to join another federation; else call the consortium",
            code="server-key",
        )


def _believed(site: Site, pem: str, authority: str, key: ec.EllipticCurvePrivateKey) -> Certificate:
    read = read_certificate(pem)
    if read.name != site.name or not certified(pem, authority) or not belongs(pem, key):
        raise FederationError(
            "the certificate that came",
            "it is not this hospital's, not of the federation's authority, or not for the key that was made here",
            "Call the consortium",
            code="certificate",
        )
    return read
