"""What masked rounds add to what is said on the wire, imported from `common.messages`: terms, keys, shares, masked sums.

What each is for, and in which order they come: `client.privacy.masking`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from common.messages_heads import LedgerHead, Witness
from common.types import Arrays, Digest, RunId, SiteName


@dataclass(frozen=True)
class Terms:
    """What a masked round is about; each site holds it against its own roster, plan and policy."""

    roster: Digest
    """Of the roster that the sites approved."""
    members: tuple[SiteName, ...]
    """The sites that should train, sorted; each is in the roster."""
    threshold: int
    """Sites without which the sum is not opened; over half of `members`."""
    bits: int
    """16, 24 or 32: of one value."""
    range: float
    """The largest magnitude of one value of an update."""
    heaviest: int
    """The largest weight of a site."""
    values: int
    """Values of one update."""


@dataclass(frozen=True)
class SignedKeys:
    """The keys of one site for one round, under its enrolled identity's signature."""

    site: SiteName
    mask_key: str
    """X25519, hexadecimal; for the masks between two sites."""
    seal_key: str
    """X25519, hexadecimal; for shares on their way."""
    signature: str


@dataclass(frozen=True)
class Dealt:
    """What one site shared out: a commitment to the seed of its own mask, and sealed shares by holder."""

    commitment: str
    sealed: dict[SiteName, str]


@dataclass(frozen=True)
class Secure:
    """What an instruction of a masked round carries besides its model; only what its kind needs is filled in."""

    terms: Terms
    keys: tuple[SignedKeys, ...] = ()
    """SHARES: of everybody who takes part, sorted by site."""
    dealt: dict[SiteName, Dealt] = field(default_factory=dict)
    """TRAIN: of everybody who shared out."""
    alive: tuple[SiteName, ...] = ()
    """CONSENT, UNMASK: whose masked updates are in the sum, sorted."""
    dead: tuple[SiteName, ...] = ()
    """CONSENT, UNMASK: who shared out and then vanished, sorted."""
    consents: dict[SiteName, str] = field(default_factory=dict)
    """UNMASK: signatures over who is alive and who is dead."""


@dataclass(frozen=True)
class Keys:
    """Answer to KEYS."""

    site: SiteName
    run: RunId
    round: int
    code_digest: Digest
    keys: SignedKeys


@dataclass(frozen=True)
class Shares:
    """Answer to SHARES."""

    site: SiteName
    run: RunId
    round: int
    code_digest: Digest
    dealt: Dealt


@dataclass(frozen=True)
class Masked:
    """Answer to TRAIN in a masked round: what one site learned, under masks; weight and figures inside them."""

    site: SiteName
    run: RunId
    round: int
    plan_digest: Digest
    code_digest: Digest
    arrays: Arrays
    """`values` (uint16, uint32, or three uint8 a value) and `head` (uint64); see `common.secagg`."""
    epsilon: float | None = None
    simulated: bool = False
    head: LedgerHead | None = None
    """As in an Update."""
    audit: Witness | None = None
    """The site's word on the audit logs; None where it is not enrolled."""


@dataclass(frozen=True)
class Consent:
    """Answer to CONSENT: the signature of the site's identity over who is alive and who is dead."""

    site: SiteName
    run: RunId
    round: int
    code_digest: Digest
    signature: str


@dataclass(frozen=True)
class Opened:
    """Answer to UNMASK: this site's shares, hexadecimal, by whose secret they are of."""

    site: SiteName
    run: RunId
    round: int
    code_digest: Digest
    own: dict[SiteName, str]
    """Of the own masks of sites that are alive."""
    mask: dict[SiteName, str]
    """Of the pairwise masks of sites that are dead."""
