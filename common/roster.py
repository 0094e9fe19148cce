"""Who takes part: the server's signed list of every hospital's long-lived key.

A roster has a version. A hospital that is added, leaves or changes its key makes a new one; a certificate that is
renewed does not, because a roster names identities and no certificates. The signature covers federation, version,
server and members in their order, so that no member can be put into another federation's list or an older one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from common.errors import FederationError
from common.identity import Identity, PublicKey, Signature, verify
from common.types import Digest, SiteName

_DOMAIN: Final = "consilium/roster/1"
"""First in what is signed, so that no signature made for another purpose fits."""


@dataclass(frozen=True)
class Member:
    """A hospital and the key it signs with."""

    name: SiteName
    key: PublicKey


@dataclass(frozen=True)
class Roster:
    """A federation's members at one version, under the server's signature; members in order of their names."""

    federation: str
    version: int
    server: PublicKey
    members: tuple[Member, ...]
    signature: Signature

    def key_of(self, site: str) -> PublicKey | None:
        """The key of a member; None for who is none."""
        return next((member.key for member in self.members if member.name == site), None)

    @property
    def digest(self) -> Digest:
        """Of everything that is signed; what a plan's approval and a mask's round are bound to."""
        return Digest("sha256:" + hashlib.sha256(_signed(self)).hexdigest())


def sign_roster(identity: Identity, federation: str, version: int, members: Iterable[Member]) -> Roster:
    """The list of these members, signed by the server.

    Args:
        identity: the server's.
        federation: its name.
        version: 1 or more, higher than every earlier one.
        members: in any order, no name twice.
    """
    ordered = tuple(sorted(members, key=lambda member: member.name))
    unsigned = Roster(federation, version, identity.public, ordered, Signature(""))
    signature = identity.sign(_signed(unsigned))
    return Roster(federation, version, identity.public, ordered, signature)


def verify_roster(roster: Roster, server_key: PublicKey) -> None:
    """Believe a roster, or not.

    Args:
        roster: as it was received.
        server_key: as it was pinned at enrolment; the one in the roster proves nothing.

    Raises:
        FederationError: `roster` when another key signed it, anything was changed, or it names a site or a key twice.
    """
    names = [member.name for member in roster.members]
    keys = [member.key for member in roster.members]
    if roster.server != server_key or not verify(server_key, roster.signature, _signed(roster)):
        raise _wrong("it is not signed by the server that this hospital enrolled with")
    if names != sorted(set(names)) or len(set(keys)) != len(keys) or roster.version < 1:
        raise _wrong("it names a site or a key twice, or has no version")


def dump_roster(roster: Roster) -> bytes:
    """A roster as JSON."""
    members = [{"name": member.name, "key": member.key} for member in roster.members]
    values = {
        "schema": _DOMAIN,
        "federation": roster.federation,
        "version": roster.version,
        "server": roster.server,
        "members": members,
        "signature": roster.signature,
    }
    return json.dumps(values, indent=1).encode()


def load_roster(text: bytes) -> Roster:
    """A roster from JSON; not yet believed, see `verify_roster`.

    Raises:
        FederationError: `roster` when it is none.
    """
    try:
        values = json.loads(text)
        if values["schema"] != _DOMAIN or not isinstance(values["version"], int):
            raise _wrong("it is not a roster of this release")
        return Roster(
            _text(values["federation"]),
            values["version"],
            PublicKey(_text(values["server"])),
            tuple(
                Member(SiteName(_text(one["name"])), PublicKey(_text(one["key"])))
                for one in values["members"]
            ),
            Signature(_text(values["signature"])),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _wrong("it is not a roster") from None


def _signed(roster: Roster) -> bytes:
    members = [[member.name, member.key] for member in roster.members]
    what = [_DOMAIN, roster.federation, roster.version, roster.server, members]
    return json.dumps(what, separators=(",", ":")).encode()


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _wrong(rule: str) -> FederationError:
    remedy = "Call the consortium; compare the fingerprint of its key with the one in your kit"
    return FederationError("roster", rule, remedy, code="roster")
