"""What this hospital holds its federation to: the server's key and the roster, as pinned here.

<state>/federation/server.json   federation, the server's public key; written at enrolment
<state>/federation/roster.json   the roster that this hospital accepted
<state>/federation/offered.json  a newer one that the server signed and nobody here accepted yet
<secrets>/identity.key           this hospital's own key; made at enrolment, never leaves, never renewed

1. The server's key is pinned once. Another key is refused until the hospital leaves the federation.
2. A roster is believed when the pinned key signed it, it is of the pinned federation and it names this hospital's
   own key; it takes effect when `pin` is called, which only an enrolment or a person does.
3. The version never goes back, and the same version is always the same list.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from common.checkpoints import write_whole
from common.errors import FederationError, StorageError
from common.identity import Identity, PublicKey
from common.roster import Roster, dump_roster, load_roster, verify_roster

if TYPE_CHECKING:
    from client.site import Site

FOLDER: Final = "federation"
IDENTITY: Final = "identity.key"
ENROLMENT: Final = "enrolment.sent"
"""The event under which the connection's log has what asked to be enrolled, or for the next certificate."""
_SCHEMA: Final = "consilium/server/1"


@dataclass(frozen=True)
class Membership:
    """A hospital in its federation."""

    roster: Roster
    server_key: PublicKey
    identity: Identity


def identity_of(site: Site) -> Identity:
    """The hospital's own key, made on first use.

    Raises:
        SettingsError, StorageError: it cannot be read, or not be made.
    """
    path = site.secrets / IDENTITY
    return Identity.load(path) if path.exists() else Identity.make(path)


def pinned(site: Site) -> tuple[str, PublicKey] | None:
    """Federation and server's key, as pinned here; None before the first enrolment.

    Raises:
        StorageError: `membership` when the file cannot be read.
    """
    return _server(site.state / FOLDER)


def load_membership(site: Site) -> Membership | None:
    """What was pinned; None where the site has not been enrolled.

    Raises:
        FederationError: `roster` when the pinned roster was changed.
        StorageError: `membership` when a part of it is missing or cannot be read.
        SettingsError: the identity's key is missing or can be read by others.
    """
    folder = site.state / FOLDER
    if not (folder / "roster.json").exists():
        return None
    server = _server(folder)
    if server is None:
        raise _damaged("server.json")
    roster = _roster(folder / "roster.json")
    verify_roster(roster, server[1])
    return Membership(roster, server[1], Identity.load(site.secrets / IDENTITY))


def pin(site: Site, roster: Roster, server_key: PublicKey) -> Membership:
    """Accept a roster, and on first use the server's key; durable when the call returns.

    Args:
        site: this hospital.
        roster: as it was received.
        server_key: from the kit at enrolment, as pinned afterwards.

    Raises:
        FederationError: `roster`, `roster-old` for a lower version, `roster-fork` for another list under the
            same version, `server-key` for another key or federation than the pinned one, `not-a-member` when it does
            not name this hospital's key.
    """
    folder = site.state / FOLDER
    identity = identity_of(site)
    check(site, roster, server_key, identity)
    if _server(folder) is None:
        values = {"schema": _SCHEMA, "federation": roster.federation, "key": server_key}
        write_whole(folder / "server.json", json.dumps(values, indent=1).encode())
    write_whole(folder / "roster.json", dump_roster(roster))
    (folder / "offered.json").unlink(missing_ok=True)
    return Membership(roster, server_key, identity)


def offer(site: Site, roster: Roster) -> bool:
    """Keep a newer roster for a person to look at.

    Returns:
        Whether it waits for somebody; False when it is the pinned one.

    Raises:
        FederationError: as `pin`.
    """
    known = load_membership(site)
    if known is None:
        raise _wrong(
            "not-enrolled", "this hospital has not been enrolled", "Run `consilium-site enrol` first"
        )
    check(site, roster, known.server_key, known.identity)
    if roster.version == known.roster.version:
        return False
    write_whole(site.state / FOLDER / "offered.json", dump_roster(roster))
    return True


def offered(site: Site) -> Roster | None:
    """The roster that waits, checked anew; None when none does."""
    path = site.state / FOLDER / "offered.json"
    known = load_membership(site)
    if known is None or not path.exists():
        return None
    roster = _roster(path)
    check(site, roster, known.server_key, known.identity)
    return roster if roster.version > known.roster.version else None


def check(site: Site, roster: Roster, server_key: PublicKey, identity: Identity) -> None:
    """Whether this roster could take effect here.

    Raises:
        FederationError: as `pin`.
    """
    folder = site.state / FOLDER
    server = _server(folder)
    if server is not None and server != (roster.federation, server_key):
        raise _wrong(
            "server-key",
            "its federation or the server's key is not the one pinned here",
            "Call the consortium. A hospital that joins another federation makes a new site for it",
        )
    verify_roster(roster, server_key)
    path = folder / "roster.json"
    if path.exists():
        _follows(roster, _roster(path))
    if roster.key_of(site.name) != identity.public:
        raise _wrong(
            "not-a-member",
            f"it does not name {site.name} with the key that is here",
            "Ask the consortium whether this hospital was admitted, or its membership revoked",
        )


def _follows(new: Roster, old: Roster) -> None:
    if new.version < old.version:
        remedy = "Ask the consortium whether its server was restored from a backup"
        raise _wrong("roster-old", f"its version {new.version} is below {old.version}", remedy)
    if new.version == old.version and new.digest != old.digest:
        remedy = "Call the consortium: two lists were signed under one version"
        raise _wrong("roster-fork", f"version {new.version} was another list before", remedy)


def _server(folder: Path) -> tuple[str, PublicKey] | None:
    path = folder / "server.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["schema"] != _SCHEMA:
            raise _damaged(path.name)
        return str(values["federation"]), PublicKey(str(values["key"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise _damaged(path.name) from None


def _roster(path: Path) -> Roster:
    try:
        return load_roster(path.read_bytes())
    except OSError:
        raise _damaged(path.name) from None


def _wrong(code: str, rule: str, remedy: str) -> FederationError:
    return FederationError("roster", rule, remedy, code=code)


def _damaged(name: str) -> StorageError:
    return StorageError(
        name,
        "the pinned membership cannot be read",
        "Restore state/federation from backup",
        code="membership",
    )
