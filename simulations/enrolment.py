"""Virtual hospitals enrolled: a roster signed by the consortium's key, pinned at every site.

In a real federation people compare fingerprints by telephone first (`server.enrolment`); here one process plays
both sides. The result is the same files, so that envelopes and masks work as they do between hospitals.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from client.membership import identity_of, pin
from client.site import Site
from common.roster import Member, Roster, sign_roster
from server.federation_folder import SETTINGS, Consortium

FEDERATION: Final = "virtual"
_NOWHERE: Final = "localhost:9443"
"""A federation in one process has no edge; its folder wants an address all the same."""


def enrol(sites: Iterable[Site], consortium: Path) -> Roster:
    """Sign a roster of these virtual hospitals and pin it at each; a second call with others makes a new version.

    Args:
        sites: simulated ones.
        consortium: folder of the server; a federation is made in it where there is none.

    Raises:
        FederationError: a site belongs to another federation already.
        StorageError, SettingsError: a key or folder cannot be used.
    """
    everybody = list(sites)
    exists = (consortium / SETTINGS).exists()
    server = Consortium.open(consortium) if exists else Consortium.init(consortium, FEDERATION, [_NOWHERE])
    named = sorted(everybody, key=lambda site: site.name)
    members = tuple(Member(site.name, identity_of(site).public) for site in named)

    def make(old: Roster | None, _sites: object) -> Roster:
        if old is not None and old.members == members:
            return old
        return sign_roster(server.identity, FEDERATION, 1 if old is None else old.version + 1, members)

    roster = server.book.roster()
    if roster is None or roster.members != members:
        server.book.next_roster(make, datetime.now(UTC))
        roster = make(server.book.roster(), ())
    for site in everybody:
        pin(site, roster, server.identity.public)
    return roster
