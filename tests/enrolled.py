"""A consortium and real hospitals that are enrolled in it, without the network between them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from client.membership import pin
from client.policy import Policy
from client.privacy.ledger import Ledger
from client.site import Site, init_site
from common.identity import Identity
from common.roster import Member, sign_roster
from server.federation_folder import Consortium

OPEN = Policy(allow_non_private=True, min_patients=5, min_cell=1)


def consortium(folder: Path, name: str = "lungs") -> Consortium:
    """A federation's server."""
    return Consortium.init(folder / "consortium", name, ["localhost:9443"])


def hospital(folder: Path, name: str = "alpha", policy: Policy = OPEN) -> Site:
    """A real hospital, not a virtual one: its ledger was made on purpose, and it is enrolled by `enrol`."""
    site = init_site(folder / name, name, policy=policy)
    Ledger.create(site.ledger).close()
    return site


def enrol(server: Consortium, *sites: Site, version: int = 1) -> None:
    """What enrolment leaves behind on both sides: keys, the roster, the pin."""
    keys = {}
    for site in sites:
        path = site.secrets / "identity.key"
        keys[site.name] = Identity.load(path) if path.exists() else Identity.make(path)
    roster = sign_roster(
        server.identity, server.name, version, [Member(name, key.public) for name, key in keys.items()]
    )
    server.book.next_roster(lambda *_: roster, datetime.now(UTC))
    for site in sites:
        pin(site, roster, server.identity.public)
