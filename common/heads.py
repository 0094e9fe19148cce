"""A ledger's head, countersigned: the server's word that it has seen it.

The signature covers the site, the head, the run and the round, so that it cannot be shown for another
site's ledger nor be shown again for another instruction.
"""

from __future__ import annotations

import json
from typing import Final

from common.identity import Identity, verify
from common.messages import Countersignature, LedgerHead
from common.types import RunId, SiteName

_DOMAIN: Final = "consilium/ledger-head/1"
"""First in what is signed, so that no signature made for another purpose fits."""


def countersign(
    identity: Identity, site: SiteName, head: LedgerHead, run: RunId, round_: int
) -> Countersignature:
    """The holder of `identity` has seen this head of `site`, and says so for this round of this run."""
    unsigned = Countersignature(site, head, run, round_, identity.public, "")
    return Countersignature(site, head, run, round_, identity.public, identity.sign(_signed(unsigned)))


def genuine(given: Countersignature) -> bool:
    """Whether the signature is that of the key it names, over what it names."""
    return verify(given.key, given.signature, _signed(given))


def _signed(given: Countersignature) -> bytes:
    what = [
        _DOMAIN,
        given.site,
        given.head.sequence,
        given.head.digest,
        given.run,
        given.round,
        given.key,
    ]
    return json.dumps(what, separators=(",", ":")).encode()
